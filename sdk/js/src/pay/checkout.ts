// What the pay page does. One flow runs at a time: it ends with the form, or with an outcome.
//
//	look ──► form ──► pay ──► send ──► settle ──► success, declined, …
//	  │                        ▲          ▲
//	  └── an attempt is open ──┘          │
//	  └── there is a payment ─────────────┘
//
// The form is offered only when the server has said that the session has no payment. While
// an outcome is unknown, the page says so and goes on asking.

import { outcomeOf, reasonOf, redirectOf, type Answer, type API, type Card, type Payment, type Session, type Token } from "../api";
import type { Attempt, Attempts } from "../attempt";
import { delay, MAX_WAIT } from "../backoff";
import type { CardInfo } from "../messages";
import type { Parent } from "./parent";
import { reasonText, type TextKey } from "./texts";

/** Field names an input of the form. */
export type Field = "number" | "expiry" | "code" | "holder";

export type View =
  | { kind: "loading" | "paying" | "checking" | "pending" }
  | { kind: "expired" | "canceled" | "refunded" | "payExpired" | "elsewhere" | "nothing" | "error" }
  | { kind: "form"; problem: TextKey | null; fields: Field[]; fresh: boolean }
  | { kind: "challenge"; url: string }
  | { kind: "success"; payment: Payment }
  | { kind: "declined"; reason: TextKey; again: boolean };

/** Page is what the server has written into the page. */
export interface Page {
  session: string;
  publicKey: string;
  live: boolean;
  workflow: string;
  /** Only shows what became of the session. */
  statusOnly: boolean;
}

/** Surface is what the shopper sees. */
export interface Surface {
  show(view: View): void;
  /** order is called when it is known what is to be paid. */
  order(session: Session): void;
  offline(is: boolean): void;
  /** leave takes the shopper to their bank. */
  leave(url: string): void;
}

type Known<T> = Exclude<Answer<T>, { kind: "unknown" }>;
type Refusal = Extract<Answer<never>, { kind: "refused" }>;
type Next = () => Promise<void>;

/** After that long without an answer, the page says that it is checking. In milliseconds. */
const SLOW = 8000;

/** How often a card is handed in again, while nothing has been paid and the form can come back. */
const HAND_IN_TRIES = 5;

/** Looks at a payment before the page says more than that it is checking. */
const GRACE = 2;

const SESSION_NOT_FOUND = "CHECKOUT_SESSION_NOT_FOUND";

export class Checkout {
  private view: View = { kind: "loading" };
  /** The latest payment of the session that we know of. */
  private seen: string | null = null;
  private wake: () => void = () => {};

  constructor(
    private readonly page: Page,
    private readonly api: API,
    private readonly attempts: Attempts,
    private readonly parent: Parent | null,
    private readonly surface: Surface,
  ) {}

  async start(): Promise<void> {
    this.attempts.onOther(() => {
      if (this.view.kind === "form" || (this.view.kind === "declined" && this.view.again)) void this.follow();
    });
    if (this.parent) this.parent.onLook = () => this.wake();
    if (this.attempts.current()?.token) this.show({ kind: "checking" });
    await this.look(null);
  }

  /** pay makes an attempt with a card. While anything else goes on, it does nothing. */
  async pay(card: Card): Promise<void> {
    if (this.view.kind !== "form") return; // a double click, Enter held down
    this.show({ kind: "paying" });
    const slow = setTimeout(() => this.view.kind === "paying" && this.show({ kind: "checking" }), SLOW);
    const next = await this.attempts.alone<Next>(
      async (waited) => (waited ? () => this.look(null) : this.attempt(card)),
      () => this.show({ kind: "checking" }),
    );
    clearTimeout(slow);
    await next();
  }

  /** again goes back from a decline to the form. */
  again(): void {
    if (this.view.kind === "declined" && this.view.again) this.offerForm(null, [], true);
  }

  /** look finds out where the session stands. problem is what the form will say, if it comes to that. */
  private async look(problem: TextKey | null): Promise<void> {
    for (let tries = 0; ; tries++) {
      const session = await this.ask(() => this.api.session());
      if (session.kind === "refused" && session.code !== SESSION_NOT_FOUND) return this.fail(session);
      const open = session.kind === "ok" ? session.value : null;
      if (open) this.surface.order(open);
      const stored = this.attempts.current();
      let failed: Payment | null = null;
      if (!open || open.used || stored?.token || problem || this.page.statusOnly || !this.seamless()) {
        const found = await this.ask(() => this.api.payment());
        if (found.kind === "ok") {
          if (outcomeOf(found.value) !== "failed") return this.settle(found.value, stored, false);
          failed = found.value;
          this.seen = failed.id;
        } else if (found.code !== "PAYMENT_NOT_FOUND" && found.code !== SESSION_NOT_FOUND) {
          return this.fail(found);
        }
      }
      if (!open) return this.expire(stored);
      if (!open.used) return this.goOn(stored, failed, problem);
      await this.pause(pollDelay(tries), false); // it was used a moment ago, or is from now on
    }
  }

  /** goOn is what comes when the session is open and free. */
  private async goOn(stored: Attempt | null, failed: Payment | null, problem: TextKey | null): Promise<void> {
    if (this.page.statusOnly) return this.watch(failed);
    if (stored?.token) {
      const isItsEnd = failed && failed.id !== stored.after && !this.seamless();
      return isItsEnd ? this.settle(failed, stored, false) : this.follow();
    }
    if (!this.seamless()) {
      const init = await this.parent?.init();
      if (!init) return this.show({ kind: "elsewhere" });
      if (!init.createsPayments) {
        return this.fail({ kind: "refused", status: 0, code: "NO_CREATE_PAYMENT", messages: ["this session needs createPayment"] });
      }
    }
    this.offerForm(problem, [], false);
  }

  /** watch waits for a payment, on a page that only shows one. */
  private async watch(failed: Payment | null): Promise<void> {
    if (failed) this.tell(failed);
    this.show(failed ? this.declined(failed, false) : { kind: "nothing" });
    for (let tries = 0; ; tries++) {
      await this.pause(pollDelay(tries), false);
      const found = await this.ask(() => this.api.payment());
      if (found.kind === "ok" && (outcomeOf(found.value) !== "failed" || found.value.id !== failed?.id)) return this.look(null);
    }
  }

  /** follow goes on with the attempt that is open, which may be another tab's. */
  private async follow(): Promise<void> {
    this.show({ kind: "checking" });
    const next = await this.attempts.alone<Next>(
      async (waited) => {
        const open = this.attempts.current();
        return waited || !open?.token ? () => this.look(null) : this.send(open, open.token, null, false);
      },
      () => {},
    );
    await next();
  }

  /** attempt hands in the card, and pays with the token that comes back. */
  private async attempt(card: Card): Promise<Next> {
    const open = this.attempts.open(this.seen);
    if (open.token) return this.send(open, open.token, null, false); // another tab was faster
    for (let tries = 0; ; tries++) {
      const answer = await this.api.tokenize(card);
      this.surface.offline(answer.kind === "unknown" && !answer.reached);
      if (answer.kind === "ok") return this.sendNew(open, answer.value);
      if (answer.kind === "refused") return () => this.cardRefused(answer);
      if (tries + 1 >= HAND_IN_TRIES) {
        return async () => this.offerForm(answer.retryAfter ? "tooMany" : "notSent", [], false);
      }
      await this.pause(delay(tries, answer.retryAfter), !answer.reached);
    }
  }

  private sendNew(open: Attempt, token: Token): Promise<Next> {
    return this.send(this.attempts.keep(open, token.token), token.token, token.card, true);
  }

  /** send has the attempt carried out, however long it takes to learn what became of it. */
  private send(attempt: Attempt, token: string, card: CardInfo | null, fresh: boolean): Promise<Next> {
    return this.seamless() ? this.sendToUs(attempt, token, fresh) : this.sendToShop(attempt, token, card, fresh);
  }

  private async sendToUs(attempt: Attempt, token: string, fresh: boolean): Promise<Next> {
    let notBefore = 0;
    let busy = false;
    for (let tries = 0; ; tries++) {
      let reached = true;
      if (performance.now() >= notBefore) {
        const answer = await this.api.pay(attempt.nonce, token);
        this.surface.offline(answer.kind === "unknown" && !answer.reached);
        if (answer.kind === "ok") return () => this.settle(answer.value, attempt, fresh && tries === 0);
        if (answer.kind === "refused") return () => this.refused(attempt, answer);
        reached = answer.reached;
        busy = answer.busy;
        notBefore = performance.now() + answer.retryAfter;
        this.show({ kind: "checking" });
      }
      if (busy) { // by this nonce, or by another payment of the session
        const found = await this.api.payment();
        if (found.kind === "ok" && !["failed", "pending"].includes(outcomeOf(found.value))) {
          return () => this.settle(found.value, attempt, false);
        }
      }
      await this.pause(Math.min(delay(tries, notBefore - performance.now()), MAX_WAIT), !reached);
    }
  }

  private async sendToShop(attempt: Attempt, token: string, card: CardInfo | null, fresh: boolean): Promise<Next> {
    const init = await this.parent?.init();
    if (!init || !this.parent) return async () => this.show({ kind: "elsewhere" });
    let told: boolean | null = null;
    void this.parent.create(token, attempt.nonce, card).then((ok) => {
      told = ok;
      this.wake();
    });
    for (let tries = 0; ; tries++) {
      await this.pause(pollDelay(tries), false);
      const before = told as boolean | null;
      const found = await this.api.payment();
      this.surface.offline(found.kind === "unknown" && !found.reached);
      if (found.kind === "ok" && (outcomeOf(found.value) !== "failed" || found.value.id !== attempt.after)) {
        return () => this.settle(found.value, attempt, fresh);
      }
      if (found.kind !== "unknown" && before === false) {
        // The nonce stays: if the shop's backend is merely slow, the next try is the same payment.
        this.attempts.keep(attempt, null);
        return () => this.shopFailed();
      }
    }
  }

  private async shopFailed(): Promise<void> {
    this.parent?.error({ code: "CREATE_PAYMENT_FAILED", message: "createPayment failed, and the session has no payment" });
    await this.look("shopFailed");
  }

  /** settle shows a payment, and waits for its end. attempt is the one that led to it, if any. */
  private async settle(payment: Payment, attempt: Attempt | null, fresh: boolean): Promise<void> {
    for (let tries = 0; ; tries++) {
      this.tell(payment);
      const outcome = outcomeOf(payment);
      if (outcome !== "challenge" && outcome !== "pending") {
        if (attempt) this.attempts.end(attempt.nonce);
        if (this.page.statusOnly && outcome === "failed") return this.watch(payment);
        return this.conclude(payment, outcome);
      }
      if (outcome === "challenge" && fresh) {
        this.parent?.challenge();
        this.surface.leave(redirectOf(payment));
      }
      if (tries < GRACE && !fresh) this.show({ kind: "checking" });
      else this.show(outcome === "challenge" ? { kind: "challenge", url: redirectOf(payment) } : { kind: "pending" });
      fresh = false;
      await this.pause(pollDelay(tries), false);
      const found = await this.ask(() => this.api.payment());
      if (found.kind === "refused") return this.fail(found);
      payment = found.value;
    }
  }

  private conclude(payment: Payment, outcome: "paid" | "failed" | "canceled" | "expired" | "refunded"): void {
    switch (outcome) {
      case "paid":
        return this.show({ kind: "success", payment });
      case "failed":
        return this.show(this.declined(payment, true));
      case "expired":
        return this.show({ kind: "payExpired" });
      case "canceled":
      case "refunded":
        return this.show({ kind: outcome });
    }
  }

  private declined(payment: Payment, again: boolean): View {
    return { kind: "declined", reason: reasonText(reasonOf(payment), payment.status), again };
  }

  /** refused is for an answer that says something about the attempt: that nothing was begun, at best. */
  private async refused(attempt: Attempt, answer: Refusal): Promise<void> {
    if (!saysNothingBegan(answer)) return this.fail(answer);
    this.attempts.end(attempt.nonce);
    await this.look("refused");
  }

  /** cardRefused is for an answer to a card. Nothing was paid, nor will be. */
  private async cardRefused(answer: Refusal): Promise<void> {
    if (answer.code === SESSION_NOT_FOUND) return this.look(null);
    if (!saysNothingBegan(answer)) return this.fail(answer);
    const fields = fieldsIn(answer.messages);
    this.offerForm(fields.length ? "wrongFields" : "refused", fields, false);
  }

  private expire(stored: Attempt | null): void {
    if (stored) this.attempts.end(stored.nonce);
    this.show({ kind: "expired" });
    this.parent?.error({ code: SESSION_NOT_FOUND, message: "the session is not there, or not any more" });
  }

  /** fail ends with the page's helplessness. An open attempt stays open. */
  private fail(answer: Refusal): void {
    this.show({ kind: "error" });
    this.parent?.error({ code: answer.code, message: answer.messages.join("; ") });
  }

  private offerForm(problem: TextKey | null, fields: Field[], fresh: boolean): void {
    this.show({ kind: "form", problem, fields, fresh });
  }

  private tell(payment: Payment): void {
    this.seen = payment.id;
    this.parent?.result({
      checkoutSession: this.page.session,
      paymentId: payment.id,
      status: payment.status,
      subStatus: payment.sub_status,
    });
  }

  /** ask asks until there is an answer. It is for questions, which may be asked as often as one likes. */
  private async ask<T>(question: () => Promise<Answer<T>>): Promise<Known<T>> {
    for (let tries = 0; ; tries++) {
      const answer = await question();
      this.surface.offline(answer.kind === "unknown" && !answer.reached);
      if (answer.kind !== "unknown") return answer;
      await this.pause(delay(tries, answer.retryAfter), !answer.reached);
    }
  }

  /** pause waits, or until there is a reason to look at once: wakes says that being online is one. */
  private pause(ms: number, wakes: boolean): Promise<void> {
    return new Promise((resolve) => {
      const done = () => {
        clearTimeout(timer);
        removeEventListener("online", done);
        this.wake = () => {};
        resolve();
      };
      const timer = setTimeout(done, ms);
      if (wakes) addEventListener("online", done);
      this.wake = done;
    });
  }

  private seamless(): boolean {
    return this.page.workflow === "SDK_SEAMLESS";
  }

  private show(view: View): void {
    this.view = view;
    this.surface.show(view);
  }
}

/** pollDelay is how long to wait before looking at a payment again, in milliseconds. */
function pollDelay(tries: number): number {
  return Math.min(MAX_WAIT, 800 * 1.5 ** Math.min(tries, 10)) * (0.75 + Math.random() / 2);
}

/** saysNothingBegan: of all refusals, these say that the nonce has begun nothing. */
function saysNothingBegan(answer: Refusal): boolean {
  if (answer.status === 400 || answer.status === 422) return true;
  return answer.status === 401 && ["INVALID_TOKEN", "TOKEN_IN_USE", "INVALID_CUSTOMER_FOR_TOKEN"].includes(answer.code);
}

/** fieldsIn is which inputs an answer complains of: its messages name members by their path. */
function fieldsIn(messages: string[]): Field[] {
  const names: [RegExp, Field][] = [
    [/card\.number/, "number"],
    [/card\.expiration_/, "expiry"],
    [/card\.security_code/, "code"],
    [/card\.holder_name/, "holder"],
  ];
  return names.filter(([path]) => messages.some((m) => path.test(m))).map(([, field]) => field);
}
