// How long to wait before a request is sent again.

/** The longest wait between two tries, in milliseconds, unless the server asks for more. */
export const MAX_WAIT = 8000;

const FIRST_WAIT = 500;

/** The longest wait that a server may ask for: a payment that a person has to look at. */
const MAX_RETRY_AFTER = 60_000;

/**
 * delay is how long to wait after the given number of tries, in milliseconds: exponential
 * with full jitter, so that pages that lost the server together do not come back together.
 * It is never shorter than what the server asked for (retryAfter, in milliseconds).
 */
export function delay(tries: number, retryAfter = 0, random: () => number = Math.random): number {
  const ceiling = Math.min(MAX_WAIT, FIRST_WAIT * 2 ** Math.min(tries, 10));
  return Math.max(random() * ceiling, Math.min(retryAfter, MAX_RETRY_AFTER));
}
