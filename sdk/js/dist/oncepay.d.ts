// Types of Oncepay's browser SDK, /sdk/v1/oncepay.js.

/** A language of the payment page. */
export type Language = "en" | "es" | "pt";

/** What became of the session's payment. Believe the API or a webhook, not a browser, before you ship. */
export interface PaymentResult {
  checkoutSession: string;
  paymentId: string;
  /** The payment's status, as in the API: SUCCEEDED, PENDING, DECLINED ... */
  status: string;
  subStatus: string;
}

/** What went wrong that the shopper cannot mend. */
export interface CheckoutError {
  /**
   * PAGE_NOT_LOADED, CHECKOUT_SESSION_NOT_FOUND, NO_CREATE_PAYMENT, CREATE_PAYMENT_FAILED,
   * WRONG_MODE, or the code of an error of the API.
   */
  code: string;
  message: string;
}

/** What comes with a one-time token. */
export interface OneTimeTokenInfo {
  /**
   * The nonce of this attempt, a UUID. Send it as X-Idempotency-Key of POST /v1/payments: it
   * stays the same when the page is reloaded and asks again.
   */
  idempotencyKey: string;
  /** The card behind the token. Missing if the page was loaded again since it was typed. */
  card?: { brand: string; iin: string; lfd: string };
}

export interface StatusOptions {
  /** The id of a checkout session, which your backend has made. */
  checkoutSession: string;
  /** The element that is filled with the payment page, or a CSS selector of it. */
  elementSelector: string | Element;
  /** Accepted, as other SDKs ask for it. The country is the session's. */
  countryCode?: string;
  /** A language tag. Without one, that of your page, or else the browser's. */
  language?: string;
  /** Is called each time that there is something new to tell. */
  onResult?: (result: PaymentResult) => void;
  onError?: (error: CheckoutError) => void;
}

export interface CheckoutOptions extends StatusOptions {
  /**
   * Has your backend pay with the token. A session with the workflow SDK_CHECKOUT needs it; one with
   * SDK_SEAMLESS never calls it. Return a promise, and reject it only if no payment was made,
   * or you do not know.
   */
  createPayment?: (oneTimeToken: string, info: OneTimeTokenInfo) => unknown;
}

export interface Instance {
  /** Shows the payment page. Whatever this instance showed before goes away. */
  startCheckout(options: CheckoutOptions): void;
  /** Shows only what became of the session's payment, and waits for it. */
  mountStatusPayment(options: StatusOptions): void;
  /** Has the payment page look at the payment now, for instance when your backend has paid. */
  continuePayment(): void;
  /** Takes the payment page away. What was sent goes on; mounting again shows what became of it. */
  unmount(): void;
}

export interface OncepaySDK {
  /**
   * Makes an instance. Throws a TypeError if the key is not a public one. apiUrl is where
   * Oncepay is reached, if this script was loaded from elsewhere.
   */
  initialize(publicKey: string, options?: { apiUrl?: string }): Instance;
}

declare global {
  const Oncepay: OncepaySDK;
  interface Window {
    readonly Oncepay: OncepaySDK;
  }
}
