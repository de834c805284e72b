// What the shopper sees. Everything is made with the DOM's own functions: no markup is
// parsed, so nothing that the API says can become any.

import { webURL, type Card, type Payment, type Session } from "../api";
import type { Surface, View } from "./checkout";
import { Form } from "./form";
import { el, icon } from "./dom";
import { formatAmount, textsOf, type Language, type TextKey, type Texts } from "./texts";

export interface Details {
  live: boolean;
  merchantName: string;
  /** Where the shopper came from, "" if that is not known. */
  callbackURL: string;
  framed: boolean;
}

interface Panel {
  icon: "spinner" | "check" | "cross" | "clock" | "lock" | "info";
  title: TextKey;
  texts: TextKey[];
  /** Whether the title is news that a screen reader must tell at once. */
  tone: "busy" | "good" | "bad" | "calm";
}

const PANELS: Record<Exclude<View["kind"], "form">, Panel> = {
  loading: { icon: "spinner", title: "loading", texts: [], tone: "busy" },
  paying: { icon: "spinner", title: "paying", texts: [], tone: "busy" },
  checking: { icon: "spinner", title: "checkingTitle", texts: ["checkingText"], tone: "busy" },
  pending: { icon: "clock", title: "pendingTitle", texts: ["pendingText"], tone: "calm" },
  challenge: { icon: "lock", title: "challengeTitle", texts: ["challengeText"], tone: "calm" },
  success: { icon: "check", title: "successTitle", texts: ["successText"], tone: "good" },
  declined: { icon: "cross", title: "declinedTitle", texts: ["declinedText"], tone: "bad" },
  canceled: { icon: "info", title: "canceledTitle", texts: ["canceledText"], tone: "calm" },
  refunded: { icon: "info", title: "refundedTitle", texts: ["refundedText"], tone: "calm" },
  payExpired: { icon: "clock", title: "payExpiredTitle", texts: ["payExpiredText"], tone: "calm" },
  expired: { icon: "clock", title: "expiredTitle", texts: ["expiredText"], tone: "calm" },
  elsewhere: { icon: "info", title: "elsewhereTitle", texts: ["elsewhereText"], tone: "calm" },
  nothing: { icon: "clock", title: "nothingTitle", texts: ["nothingText"], tone: "calm" },
  error: { icon: "cross", title: "errorTitle", texts: ["errorText"], tone: "bad" },
};

/** Screen draws the page into an element. */
export class Screen implements Surface {
  onPay: (card: Card) => void = () => {};
  onAgain: () => void = () => {};

  private texts: Texts;
  private readonly summary = el("header", { class: "summary" });
  private readonly stage = el("section", { class: "stage" });
  private readonly notice = el("p", { class: "notice", role: "status" });
  private readonly live = el("p", { class: "unseen", role: "status" });
  private readonly form: Form;
  private view: View = { kind: "loading" };
  private session: Session | null = null;
  private isOffline = false;

  constructor(
    private readonly root: HTMLElement,
    private readonly details: Details,
    private language: Language,
  ) {
    this.texts = textsOf(language);
    this.form = new Form(details.live, (card) => this.onPay(card));
    root.classList.toggle("framed", details.framed);
    root.replaceChildren(this.summary, this.notice, this.stage, this.live);
    const noteNetwork = () => this.offline(!navigator.onLine);
    addEventListener("online", noteNetwork);
    addEventListener("offline", noteNetwork);
    this.speak(language);
  }

  /** speak changes the language of everything on the page. */
  speak(language: Language): void {
    this.language = language;
    this.texts = textsOf(language);
    document.documentElement.lang = language;
    this.drawSummary();
    this.notice.textContent = this.isOffline ? this.texts.offline : "";
    this.form.speak(this.texts, this.amount());
    this.draw(false);
  }

  show(view: View): void {
    const before = this.view.kind;
    this.view = view;
    this.draw(before !== view.kind && before !== "loading");
  }

  order(session: Session): void {
    this.session = session;
    this.drawSummary();
    this.form.speak(this.texts, this.amount());
  }

  offline(is: boolean): void {
    if (is === this.isOffline) return;
    this.isOffline = is;
    this.root.classList.toggle("offline", is);
    this.notice.textContent = is ? this.texts.offline : "";
  }

  leave(url: string): void {
    location.assign(url);
  }

  private draw(moved: boolean): void {
    const view = this.view;
    this.root.dataset.state = view.kind;
    this.root.setAttribute("aria-busy", String(view.kind === "loading" || view.kind === "paying" || view.kind === "checking"));
    if (view.kind === "form" || view.kind === "paying") {
      if (!this.form.element.isConnected) this.stage.replaceChildren(this.form.element);
      this.form.setBusy(view.kind === "paying");
      this.live.textContent = view.kind === "paying" ? this.texts.paying : "";
      if (view.kind === "form") this.form.offer(view.problem, view.fields, view.fresh, moved);
      return;
    }
    if (view.kind === "success" || view.kind === "declined" || view.kind === "expired") this.form.clear();
    const panel = PANELS[view.kind];
    const title = el(this.session ? "h2" : "h1", { tabindex: "-1" }, this.texts[panel.title]);
    const parts: Node[] = [icon(panel.icon), title];
    if (view.kind === "declined") parts.push(el("p", {}, this.texts[view.reason]));
    for (const text of panel.texts) parts.push(el("p", { class: "quiet" }, this.fill(this.texts[text])));
    parts.push(...this.actions(view));
    this.stage.replaceChildren(el("div", { class: "panel " + panel.tone }, ...parts));
    this.live.textContent = panel.tone === "busy" ? this.texts[panel.title] : "";
    if (moved && panel.tone !== "busy") title.focus({ preventScroll: this.details.framed });
  }

  private actions(view: View): Node[] {
    switch (view.kind) {
      case "success":
        return [this.receipt(view.payment), ...this.wayBack("primary")];
      case "declined": {
        if (!view.again) return [];
        const again = el("button", { type: "button", class: "primary" }, this.texts.again);
        again.addEventListener("click", () => this.onAgain());
        return [again, ...this.wayBack("link")];
      }
      case "challenge": {
        const go = el("button", { type: "button", class: "primary" }, this.texts.challengeGo);
        go.addEventListener("click", () => this.leave(view.url));
        return [go];
      }
      case "expired":
      case "canceled":
      case "refunded":
      case "payExpired":
      case "elsewhere":
      case "pending":
        return this.wayBack("link");
    }
    return [];
  }

  /** wayBack leads to the shop, unless the shop is around us. */
  private wayBack(style: "primary" | "link"): Node[] {
    const url = webURL(this.session?.callback_url || this.details.callbackURL);
    if (!url || this.details.framed) return [];
    return [el("a", { class: style === "primary" ? "primary" : "back", href: url, rel: "noreferrer" }, this.texts.back)];
  }

  private receipt(payment: Payment): Node {
    const rows: [string, string][] = [];
    const card = payment.payment_method?.payment_method_detail?.card?.card_data;
    if (card?.lfd) rows.push([this.texts.paidWith, [card.brand ?? "", "•••• " + card.lfd].join(" ").trim()]);
    const order = payment.merchant_order_id ?? this.session?.merchant_order_id;
    if (order) rows.push([this.texts.order, order]);
    rows.push([this.texts.reference, payment.id]);
    return el("dl", {}, ...rows.map(([name, value]) => el("div", {}, el("dt", {}, name), el("dd", {}, value))));
  }

  private drawSummary(): void {
    const name = this.details.merchantName || this.session?.merchant_name || "";
    const parts: Node[] = [];
    if (name) {
      const letter = el("span", { class: "avatar", "aria-hidden": "true" }, Array.from(name.trim())[0]?.toUpperCase() ?? "");
      parts.push(el("p", { class: "merchant" }, letter, el("span", {}, name)));
    }
    if (this.session) {
      parts.push(el("h1", { class: "amount" }, this.amount()));
      if (this.session.payment_description) parts.push(el("p", { class: "what" }, this.session.payment_description));
      parts.push(el("p", { class: "quiet" }, this.texts.order + " " + this.session.merchant_order_id));
    }
    if (!this.details.live) parts.push(el("p", { class: "test" }, this.texts.test));
    this.summary.replaceChildren(...parts);
  }

  private amount(): string {
    const s = this.session;
    return s ? formatAmount(s.amount.value, s.amount.currency, this.language, s.country) : "";
  }

  private fill(text: string): string {
    const payment = this.view.kind === "success" ? this.view.payment.amount : undefined;
    const amount = payment
      ? formatAmount(payment.value, payment.currency, this.language, this.session?.country ?? "")
      : this.amount();
    return text.replace("{amount}", amount);
  }
}
