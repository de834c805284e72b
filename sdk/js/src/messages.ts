// What a merchant's page (through the SDK) and our page in its frame say to each other.
//
// Both sides check who speaks: the SDK, that a message comes from its own frame and our
// origin; the page, that it comes from its parent and an origin that the merchant has
// registered. No message holds card data.

/** Version of the schema. A message of another version is ignored. */
export const VERSION = 1;

/** What became of the session's payment, as far as a browser is told. */
export interface Result {
  checkoutSession: string;
  paymentId: string;
  /** The payment's status, as in the API: SUCCEEDED, PENDING, DECLINED ... */
  status: string;
  subStatus: string;
}

/** What went wrong that the shopper cannot mend. */
export interface Problem {
  code: string;
  message: string;
}

/** What may be known of the card behind a one-time token. */
export interface CardInfo {
  brand: string;
  iin: string;
  lfd: string;
}

/** From the merchant's page to ours. */
export type ToPage =
  | { type: "init"; publicKey: string; language: string; createsPayments: boolean }
  | { type: "created"; nonce: string; ok: boolean }
  | { type: "look" };

/** From our page to the merchant's. */
export type ToParent =
  | { type: "ready" }
  | { type: "resize"; height: number }
  | { type: "token"; token: string; nonce: string; card: CardInfo | null }
  | { type: "challenge" }
  | { type: "result"; result: Result }
  | { type: "error"; problem: Problem };

/** seal marks a message as ours. */
export function seal<M extends ToPage | ToParent>(message: M): M & { oncepay: number } {
  return { oncepay: VERSION, ...message };
}

/** unseal is the message in some data, or null if it is none of ours. */
export function unseal<M extends ToPage | ToParent>(data: unknown): M | null {
  if (typeof data !== "object" || data === null) return null;
  const message = data as { oncepay?: unknown; type?: unknown };
  return message.oncepay === VERSION && typeof message.type === "string" ? (data as M) : null;
}
