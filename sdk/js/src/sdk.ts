// The SDK: what a merchant's page loads. It shows our page in a frame, and that is where
// the card is typed: the merchant's page never sees it, and neither does any script on it.

import type {
  CheckoutOptions,
  Instance,
  Language,
  OncepaySDK,
  OneTimeTokenInfo,
  StatusOptions,
} from "../dist/oncepay";
import { seal, unseal, type Problem, type Result, type ToPage, type ToParent } from "./messages";

/** How long our page may take to say that it is there, in milliseconds. */
const READY_TIMEOUT = 20_000;

/** A bank's page wants some room. In CSS pixels. */
const CHALLENGE_HEIGHT = 640;
const FIRST_HEIGHT = 420;

/** The longest page that a message may ask for. In CSS pixels. */
const MAX_HEIGHT = 4000;

const TITLES: Record<Language, string> = { en: "Payment", es: "Pago", pt: "Pagamento" };

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

/** Where this script came from is where the API is, unless told otherwise. */
const scriptURL = (document.currentScript as HTMLScriptElement | null)?.src ?? "";

interface Handlers {
  createPayment: CheckoutOptions["createPayment"];
  onResult: (result: Result) => void;
  onError: (problem: Problem) => void;
}

/** Frame is our page in the merchant's. */
class Frame {
  private readonly element = document.createElement("iframe");
  private readonly timer: ReturnType<typeof setTimeout>;
  private readonly hear = (event: MessageEvent) => this.receive(event);

  constructor(
    place: Element,
    url: string,
    private readonly origin: string,
    private readonly init: Extract<ToPage, { type: "init" }>,
    private readonly handlers: Handlers,
  ) {
    const frame = this.element;
    frame.title = TITLES[languageOf(init.language)];
    frame.style.cssText = "display:block;width:100%;border:0;height:" + FIRST_HEIGHT + "px";
    addEventListener("message", this.hear);
    frame.addEventListener("load", () => this.say(this.init)); // again, after the way to a bank and back
    this.timer = setTimeout(() => this.fail("PAGE_NOT_LOADED", "the payment page did not load: is this page's origin registered with the account?"), READY_TIMEOUT);
    frame.src = url;
    place.replaceChildren(frame);
  }

  look(): void {
    this.say({ type: "look" });
  }

  remove(): void {
    clearTimeout(this.timer);
    removeEventListener("message", this.hear);
    this.element.remove();
  }

  private say(message: ToPage): void {
    this.element.contentWindow?.postMessage(seal(message), this.origin);
  }

  private fail(code: string, message: string): void {
    this.handlers.onError({ code, message });
  }

  private receive(event: MessageEvent): void {
    if (event.origin !== this.origin || event.source !== this.element.contentWindow) return;
    const message = unseal<ToParent>(event.data);
    if (!message) return;
    switch (message.type) {
      case "ready":
        clearTimeout(this.timer);
        break;
      case "resize":
        this.setHeight(message.height);
        break;
      case "challenge":
        this.setHeight(CHALLENGE_HEIGHT);
        break;
      case "token":
        void this.create(message);
        break;
      case "result":
        this.handlers.onResult(message.result);
        break;
      case "error":
        this.fail(message.problem.code, message.problem.message);
        break;
    }
  }

  private setHeight(height: number): void {
    if (height > 0) this.element.style.height = Math.min(height, MAX_HEIGHT) + "px";
  }

  /** create has the merchant's page pay with a token, and tells ours how that went. */
  private async create({ token, nonce, card }: Extract<ToParent, { type: "token" }>): Promise<void> {
    let ok = false;
    try {
      if (this.handlers.createPayment) {
        const info: OneTimeTokenInfo = { idempotencyKey: nonce, ...(card ? { card } : {}) };
        await this.handlers.createPayment(token, info);
        ok = true;
      }
    } catch (error) {
      console.error("oncepay: createPayment failed", error);
    }
    this.say({ type: "created", nonce, ok });
  }
}

function languageOf(tag: string): Language {
  const primary = tag.toLowerCase().split(/[-_]/)[0];
  return primary === "es" || primary === "pt" ? primary : "en";
}

function find(selector: string | Element): Element {
  const place = typeof selector === "string" ? document.querySelector(selector) : selector;
  if (!place) throw new TypeError("oncepay: elementSelector names no element of this page");
  return place;
}

function initialize(publicKey: string, options: { apiUrl?: string } = {}): Instance {
  if (!/^(sandbox|prod)_/.test(publicKey) || /_secret_/.test(publicKey)) {
    throw new TypeError("oncepay: this is not a public API key; a secret one must never be in a page");
  }
  const origin = new URL(options.apiUrl ?? scriptURL, location.href).origin;
  let frame: Frame | null = null;

  const mount = (o: StatusOptions, view: string, handlers: Handlers) => {
    if (!UUID.test(o.checkoutSession)) throw new TypeError("oncepay: checkoutSession must be the id of a session");
    const place = find(o.elementSelector);
    const language = o.language ?? document.documentElement.lang ?? "";
    const query = new URLSearchParams();
    if (language) query.set("lang", languageOf(language));
    if (view) query.set("view", view);
    frame?.remove();
    frame = new Frame(
      place,
      origin + "/pay/" + o.checkoutSession + "?" + query.toString(),
      origin,
      { type: "init", publicKey, language, createsPayments: !!handlers.createPayment },
      handlers,
    );
  };

  return {
    startCheckout: (o) => mount(o, "", handlersOf(o, o.createPayment)),
    mountStatusPayment: (o) => mount(o, "status", handlersOf(o, undefined)),
    continuePayment: () => frame?.look(),
    unmount: () => {
      frame?.remove();
      frame = null;
    },
  };
}

function handlersOf(o: StatusOptions, createPayment: CheckoutOptions["createPayment"]): Handlers {
  return { createPayment, onResult: o.onResult ?? (() => {}), onError: o.onError ?? ((p) => console.error("oncepay:", p.code, p.message)) };
}

(window as { Oncepay: OncepaySDK }).Oncepay = Object.freeze({ initialize });
