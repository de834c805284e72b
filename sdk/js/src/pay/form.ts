// The card form. What is typed stays in its inputs, and leaves them only for the request
// that hands in the card.

import type { Card } from "../api";
import * as card from "./card";
import type { Field } from "./checkout";
import { brandMark, el, svg } from "./dom";
import type { TextKey, Texts } from "./texts";

interface Input {
  field: Field;
  label: TextKey;
  box: HTMLElement;
  caption: HTMLLabelElement;
  input: HTMLInputElement;
  error: HTMLParagraphElement;
  wrong: TextKey | null;
}

const FIELDS: { field: Field; label: TextKey; autocomplete: string; numeric: boolean; placeholder: TextKey | null; maxlength: number }[] = [
  { field: "number", label: "number", autocomplete: "cc-number", numeric: true, placeholder: null, maxlength: 40 },
  { field: "expiry", label: "expiry", autocomplete: "cc-exp", numeric: true, placeholder: "expiryHint", maxlength: 12 },
  { field: "code", label: "code", autocomplete: "cc-csc", numeric: true, placeholder: "codeHint", maxlength: 4 },
  { field: "holder", label: "holder", autocomplete: "cc-name", numeric: false, placeholder: null, maxlength: 255 },
];

export class Form {
  readonly element: HTMLFormElement;
  private readonly inputs: Record<Field, Input>;
  private readonly problem = el("p", { class: "problem", role: "alert" });
  private readonly button = el("button", { type: "submit", class: "primary" });
  private readonly secure = el("p", { class: "secure" });
  private readonly mark = el("span", { class: "brand" });
  private texts: Texts | null = null;
  private payText = "";
  private problemKey: TextKey | null = null;
  private busy = false;
  private brand: card.Brand | null = null;

  constructor(
    private readonly live: boolean,
    private readonly onPay: (card: Card) => void,
  ) {
    const made = FIELDS.map((f) => [f.field, this.makeInput(f)] as const);
    this.inputs = Object.fromEntries(made) as Record<Field, Input>;
    const { number, expiry, code, holder } = this.inputs;
    number.input.parentElement?.append(this.mark);
    this.element = el(
      "form",
      { novalidate: "", autocomplete: "on", method: "post" },
      this.problem,
      number.box,
      el("div", { class: "pair" }, expiry.box, code.box),
      holder.box,
      this.button,
      this.secure,
    );
    this.element.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    number.input.addEventListener("input", () => this.typeNumber());
    expiry.input.addEventListener("input", (event) => this.typeExpiry(event as InputEvent));
    code.input.addEventListener("input", () => this.typeCode());
    this.showBrand();
  }

  /** speak puts the form into words. */
  speak(texts: Texts, amount: string): void {
    this.texts = texts;
    this.payText = texts.pay.replace("{amount}", amount).trim();
    for (const { field, placeholder } of FIELDS) {
      const i = this.inputs[field];
      i.caption.textContent = texts[i.label];
      if (placeholder) i.input.placeholder = texts[placeholder];
      i.error.textContent = i.wrong ? texts[i.wrong] : "";
    }
    this.secure.replaceChildren(lock(), texts.secure);
    this.problem.textContent = this.problemKey ? texts[this.problemKey] : "";
    this.drawButton();
  }

  /** offer shows the form, with what was wrong. fresh asks for another card. */
  offer(problem: TextKey | null, fields: Field[], fresh: boolean, moved: boolean): void {
    if (fresh) this.clear();
    this.say(problem);
    const complaints: Record<Field, TextKey> = { number: "badNumber", expiry: "badExpiry", code: "badCode", holder: "noHolder" };
    for (const field of fields) this.flag(this.inputs[field], complaints[field]);
    const first = fields[0];
    if (first) this.inputs[first].input.focus();
    else if (moved) this.inputs.number.input.focus();
  }

  setBusy(busy: boolean): void {
    this.busy = busy;
    this.element.classList.toggle("busy", busy);
    for (const i of Object.values(this.inputs)) i.input.readOnly = busy;
    this.button.setAttribute("aria-disabled", String(busy)); // disabled would lose the focus
    if (busy) this.say(null);
    this.drawButton();
  }

  /** clear forgets the card. */
  clear(): void {
    for (const i of Object.values(this.inputs)) {
      i.input.value = "";
      this.flag(i, null);
    }
    this.showBrand();
  }

  private makeInput(f: (typeof FIELDS)[number]): Input {
    const id = "card-" + f.field;
    const input = el("input", {
      id,
      name: id,
      type: "text",
      autocomplete: f.autocomplete,
      inputmode: f.numeric ? "numeric" : "text",
      maxlength: String(f.maxlength),
      spellcheck: "false",
      autocapitalize: f.numeric ? "off" : "words",
      autocorrect: "off",
      required: "",
      "aria-describedby": id + "-error",
    });
    const caption = el("label", { for: id });
    const error = el("p", { id: id + "-error", class: "wrong" });
    const box = el("div", { class: "field " + f.field }, caption, el("div", { class: "input" }, input), error);
    const made: Input = { field: f.field, label: f.label, box, caption, input, error, wrong: null };
    input.addEventListener("blur", () => {
      if (input.value.trim() && !this.busy) this.flag(made, this.judge(f.field));
    });
    input.addEventListener("input", () => {
      if (made.wrong && !this.judge(f.field)) this.flag(made, null); // right again, as soon as it is
    });
    return made;
  }

  /** judge is what is wrong with a field, or null. */
  private judge(field: Field): TextKey | null {
    const value = this.inputs[field].input.value.trim();
    const number = this.number();
    switch (field) {
      case "number":
        if (!number) return "noNumber";
        return card.numberIsGood(number, this.live) ? null : "badNumber";
      case "expiry": {
        const expiry = card.readExpiry(value);
        if (!expiry) return "badExpiry";
        return card.hasPassed(expiry, new Date()) ? "pastExpiry" : null;
      }
      case "code":
        return card.codeIsGood(value, number, this.live) ? null : "badCode";
      case "holder":
        return value ? null : "noHolder";
    }
  }

  private submit(): void {
    if (this.busy) return;
    const wrong = FIELDS.map((f) => this.inputs[f.field]).filter((i) => {
      this.flag(i, this.judge(i.field));
      return i.wrong;
    });
    this.say(null);
    const expiry = card.readExpiry(this.inputs.expiry.input.value);
    if (wrong[0] || !expiry) {
      wrong[0]?.input.focus();
      return;
    }
    this.onPay({
      number: this.number(),
      expiration_month: expiry.month,
      expiration_year: expiry.year,
      security_code: this.inputs.code.input.value.trim(),
      holder_name: this.inputs.holder.input.value.trim(),
    });
  }

  private say(problem: TextKey | null): void {
    this.problemKey = problem;
    this.problem.textContent = problem && this.texts ? this.texts[problem] : "";
  }

  private flag(i: Input, wrong: TextKey | null): void {
    i.wrong = wrong;
    i.box.classList.toggle("is-wrong", wrong !== null);
    if (wrong) i.input.setAttribute("aria-invalid", "true");
    else i.input.removeAttribute("aria-invalid");
    i.error.textContent = wrong && this.texts ? this.texts[wrong] : "";
  }

  private number(): string {
    return card.digitsOf(this.inputs.number.input.value);
  }

  /** typeNumber groups the digits, and leaves the caret behind the digit that it was behind. */
  private typeNumber(): void {
    const { input } = this.inputs.number;
    const before = card.digitsOf(input.value.slice(0, input.selectionStart ?? 0)).length;
    const all = card.digitsOf(input.value);
    const text = card.group(all.slice(0, card.maxDigitsOf(all, this.live)));
    if (text !== input.value) {
      input.value = text;
      let at = 0;
      for (let digits = 0; at < text.length && digits < before; at++) if (text[at] !== " ") digits++;
      if (document.activeElement === input) input.setSelectionRange(at, at);
    }
    this.showBrand();
    if (this.inputs.code.wrong && !this.judge("code")) this.flag(this.inputs.code, null);
  }

  private typeExpiry(event: InputEvent): void {
    const { input } = this.inputs.expiry;
    if (input.selectionStart !== null && input.selectionStart < input.value.length) return; // mending, not typing on
    input.value = card.typeExpiry(input.value, event.inputType?.startsWith("delete") ?? false);
  }

  private typeCode(): void {
    const { input } = this.inputs.code;
    const digits = card.digitsOf(input.value).slice(0, card.codeLengthOf(this.number(), this.live) || 4);
    if (digits !== input.value) input.value = digits;
  }

  private showBrand(): void {
    const brand = card.brandOf(this.number());
    if (brand === this.brand) return;
    this.brand = brand;
    this.mark.replaceChildren(brandMark(brand));
    this.mark.dataset.brand = brand;
  }

  private drawButton(): void {
    const text = this.busy ? (this.texts?.paying ?? "") : this.payText;
    this.button.replaceChildren(...(this.busy ? [el("span", { class: "turning", "aria-hidden": "true" })] : []), text);
  }
}

function lock(): SVGElement {
  return svg("padlock", "0 0 16 16", ["path", { d: "M4 7h8v6H4zM5.5 7V5a2.5 2.5 0 0 1 5 0v2" }]);
}
