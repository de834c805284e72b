// The merchant's page around ours, where there is one.

import { seal, unseal, type CardInfo, type Problem, type Result, type ToPage, type ToParent } from "../messages";

export type Init = Extract<ToPage, { type: "init" }>;

/** The SDK speaks as soon as the frame has loaded; without it, nobody will. */
const SILENCE = 5000;

/** Parent talks to the page that shows ours in a frame, if the merchant has registered it. */
export class Parent {
  /** Who we talk to: set by the first message from a page that may. */
  private origin = "";
  private greeted: ((init: Init) => void)[] = [];
  private greeting: Init | null = null;
  private waiting = new Map<string, (ok: boolean) => void>();
  private told = "";
  private height = 0;

  /** onLook is called when the merchant's page says that there is something to see. */
  onLook: () => void = () => {};

  /** onInit is called each time that the SDK introduces itself. */
  onInit: (init: Init) => void = () => {};

  constructor(private readonly allowed: Set<string>) {
    addEventListener("message", (event) => this.hear(event));
  }

  /** init is what the SDK said first, or null if there is no SDK. */
  init(): Promise<Init | null> {
    if (this.greeting) return Promise.resolve(this.greeting);
    return new Promise((resolve) => {
      this.greeted.push(resolve);
      setTimeout(() => resolve(null), SILENCE);
    });
  }

  /** create has the merchant pay with a token, and says whether its page reports success. */
  create(token: string, nonce: string, card: CardInfo | null): Promise<boolean> {
    return new Promise((resolve) => {
      this.waiting.set(nonce, resolve);
      this.say({ type: "token", token, nonce, card });
    });
  }

  challenge(): void {
    this.say({ type: "challenge" });
  }

  resize(height: number): void {
    this.height = height;
    this.say({ type: "resize", height });
  }

  /** result is told once for each thing that can be told. */
  result(result: Result): void {
    const what = [result.paymentId, result.status, result.subStatus].join();
    if (what === this.told) return;
    this.told = what;
    this.say({ type: "result", result });
  }

  error(problem: Problem): void {
    this.say({ type: "error", problem });
  }

  private say(message: ToParent): void {
    if (this.origin) window.parent.postMessage(seal(message), this.origin);
  }

  private hear(event: MessageEvent): void {
    if (event.source !== window.parent || !this.allowed.has(event.origin)) return;
    if (this.origin && event.origin !== this.origin) return;
    const message = unseal<ToPage>(event.data);
    if (!message) return;
    switch (message.type) {
      case "init":
        this.origin = event.origin;
        this.greeting = message;
        for (const greet of this.greeted.splice(0)) greet(message);
        this.say({ type: "ready" });
        this.onInit(message);
        if (this.height) this.resize(this.height);
        break;
      case "created":
        this.waiting.get(message.nonce)?.(message.ok);
        this.waiting.delete(message.nonce);
        break;
      case "look":
        this.onLook();
        break;
    }
  }
}
