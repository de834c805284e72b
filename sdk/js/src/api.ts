// The API as a browser may call it: with the public key only.
//
// Every answer is one of three things, and the difference is what keeps a payment from
// being made twice: it is known (ok), it is known that nothing was done (refused), or
// nothing is known (unknown), and then the same request is sent again.

import type { CardInfo } from "./messages";

export type Answer<T> =
  | { kind: "ok"; value: T }
  | { kind: "refused"; status: number; code: string; messages: string[] }
  /**
   * retryAfter is in milliseconds, 0 if the server did not ask for any. reached is false
   * where no answer came; busy, where the server said that it works on it.
   */
  | { kind: "unknown"; reached: boolean; busy: boolean; retryAfter: number };

export interface Session {
  id: string;
  merchant_order_id: string;
  country: string;
  payment_description: string;
  amount: { currency: string; value: number };
  callback_url: string | null;
  used: boolean;
  merchant_name?: string;
}

/** The members of a payment that a page needs. Any may be missing. */
export interface Payment {
  id: string;
  status: string;
  sub_status: string;
  merchant_order_id?: string;
  amount?: { currency: string; value: number };
  checkout?: { sdk_action_required?: boolean } | null;
  payment_method?: {
    payment_method_detail?: {
      card?: { redirect_url?: string | null; card_data?: { brand?: string | null; lfd?: string | null } | null } | null;
    } | null;
  } | null;
  transactions?: Transaction | Transaction[] | null;
}

interface Transaction {
  response_code?: string | null;
}

export interface Card {
  number: string;
  expiration_month: number;
  expiration_year: number;
  security_code: string;
  holder_name: string;
}

export interface Token {
  token: string;
  card: CardInfo;
}

/** A payment may wait for its provider for half a minute, behind a proxy for a minute. */
const PAY_TIMEOUT = 65_000;
const TIMEOUT = 15_000;

/** What a browser may meet again without anything having been said about the request. */
const TRY_AGAIN = [408, 409, 425, 429];

export class API {
  private readonly base: string;

  constructor(
    session: string,
    private readonly publicKey: string,
  ) {
    this.base = "/v1/checkout/sessions/" + encodeURIComponent(session);
  }

  session(): Promise<Answer<Session>> {
    return this.call("", undefined, undefined, (v: Session) => typeof v.id === "string" && typeof v.amount === "object");
  }

  /** payment is the session's: the one that holds it, else the latest. */
  payment(): Promise<Answer<Payment>> {
    return this.call("/payment", undefined, undefined, isPayment);
  }

  /** pay sends an attempt. The same nonce and token may be sent as often as one likes. */
  pay(nonce: string, token: string): Promise<Answer<Payment>> {
    return this.call("/payment", { payment_method: { token } }, nonce, isPayment);
  }

  /** tokenize hands in a card. It charges nothing. */
  async tokenize(card: Card): Promise<Answer<Token>> {
    const body = { payment_method: { type: "CARD", vault_on_success: false, card } };
    const answer = await this.call("/token", body, undefined, (v: RawToken) => typeof v.token === "string");
    if (answer.kind !== "ok") return answer;
    const { token, card_data: data } = answer.value;
    return { kind: "ok", value: { token, card: { brand: data?.brand ?? "", iin: data?.iin ?? "", lfd: data?.lfd ?? "" } } };
  }

  private async call<T>(
    path: string,
    body: unknown,
    nonce: string | undefined,
    complete: (value: T) => boolean,
  ): Promise<Answer<T>> {
    const headers: Record<string, string> = { "public-api-key": this.publicKey, Accept: "application/json" };
    if (body) headers["Content-Type"] = "application/json";
    if (nonce) headers["X-Idempotency-Key"] = nonce;
    const stop = new AbortController();
    const timer = setTimeout(() => stop.abort(), nonce ? PAY_TIMEOUT : TIMEOUT);
    try {
      const response = await fetch(this.base + path, {
        method: body ? "POST" : "GET",
        headers,
        credentials: "omit",
        cache: "no-store",
        redirect: "error",
        signal: stop.signal,
        ...(body ? { body: JSON.stringify(body) } : {}),
      });
      return read(response.status, response.headers.get("Retry-After"), await response.text(), complete);
    } catch {
      return { kind: "unknown", reached: false, busy: false, retryAfter: 0 };
    } finally {
      clearTimeout(timer);
    }
  }
}

interface RawToken {
  token: string;
  card_data?: { brand?: string; iin?: string; lfd?: string } | null;
}

function isPayment(v: Payment): boolean {
  return typeof v.id === "string" && typeof v.status === "string";
}

/**
 * read tells what an answer says. Only one that can be read to its end, and is one of ours,
 * counts: an error page of some proxy says nothing about the payment.
 */
export function read<T>(
  status: number,
  retryAfter: string | null,
  text: string,
  complete: (value: T) => boolean,
): Answer<T> {
  const unknown: Answer<T> = {
    kind: "unknown",
    reached: true,
    busy: status === 409,
    retryAfter: /^\d{1,6}$/.test(retryAfter ?? "") ? Number(retryAfter) * 1000 : 0,
  };
  if (status >= 500 || TRY_AGAIN.includes(status)) return unknown;
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    return unknown;
  }
  if (typeof value !== "object" || value === null) return unknown;
  if (status >= 200 && status < 300) return complete(value as T) ? { kind: "ok", value: value as T } : unknown;
  const { code, messages } = value as { code?: unknown; messages?: unknown };
  if (status < 400 || typeof code !== "string") return unknown;
  return { kind: "refused", status, code, messages: Array.isArray(messages) ? messages.map(String) : [] };
}

/** Outcome is what a payment's status means to whoever pays. */
export type Outcome = "paid" | "failed" | "challenge" | "pending" | "canceled" | "expired" | "refunded";

/**
 * outcomeOf reads a payment. Only "failed" allows another attempt: then nothing was paid, and
 * nothing will be. A status that this page does not know is one to wait on.
 */
export function outcomeOf(payment: Payment): Outcome {
  switch (payment.status) {
    case "SUCCEEDED":
    case "VERIFIED":
    case "IN_DISPUTE":
    case "CHARGEBACK":
      return "paid";
    case "DECLINED":
    case "REJECTED":
    case "ERROR":
      return "failed";
    case "CANCELED":
      return payment.sub_status === "CANCELED" ? "canceled" : "pending";
    case "EXPIRED":
      return "expired";
    case "REFUNDED":
      return "refunded";
  }
  if (payment.sub_status === "AUTHORIZED") return "paid";
  return payment.checkout?.sdk_action_required && redirectOf(payment) ? "challenge" : "pending";
}

/** redirectOf is where the payer has to go, or "" for nowhere. Only http and https will do. */
export function redirectOf(payment: Payment): string {
  return webURL(payment.payment_method?.payment_method_detail?.card?.redirect_url);
}

/** webURL is the address if a page may lead there, else "". */
export function webURL(address: string | null | undefined): string {
  if (!address) return "";
  try {
    const url = new URL(address);
    return url.protocol === "https:" || url.protocol === "http:" ? url.href : "";
  } catch {
    return "";
  }
}

/** reasonOf is the response code of a payment's latest transaction, or "". */
export function reasonOf(payment: Payment): string {
  const t = payment.transactions;
  const last = Array.isArray(t) ? t[t.length - 1] : t;
  return last?.response_code ?? "";
}
