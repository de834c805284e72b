// What can be said of a card while it is typed. The server judges; this only spares the
// shopper a round trip. In test mode it lets through what the published test cards are.

export type Brand = "VISA" | "MASTERCARD" | "AMEX" | "DINERS" | "DISCOVER" | "JCB" | "UNIONPAY" | "UATP" | "";

interface Network {
  brand: Brand;
  /** Ranges of the leading digits, as the server has them. */
  ranges: [digits: number, from: number, to: number][];
  lengths: number[];
  code: number;
}

const NETWORKS: Network[] = [
  { brand: "AMEX", ranges: [[2, 34, 34], [2, 37, 37]], lengths: [15], code: 4 },
  { brand: "DINERS", ranges: [[3, 300, 305], [2, 36, 36], [2, 38, 39]], lengths: [14, 15, 16, 17, 18, 19], code: 3 },
  { brand: "JCB", ranges: [[4, 3528, 3589]], lengths: [16, 17, 18, 19], code: 3 },
  { brand: "MASTERCARD", ranges: [[2, 51, 55], [4, 2221, 2720]], lengths: [16], code: 3 },
  { brand: "DISCOVER", ranges: [[4, 6011, 6011], [3, 644, 649], [2, 65, 65]], lengths: [16, 17, 18, 19], code: 3 },
  { brand: "UNIONPAY", ranges: [[2, 62, 62]], lengths: [16, 17, 18, 19], code: 3 },
  { brand: "VISA", ranges: [[1, 4, 4]], lengths: [13, 16, 19], code: 3 },
  { brand: "UATP", ranges: [[1, 1, 1]], lengths: [15], code: 4 },
];

const MIN_DIGITS = 12;
export const MAX_DIGITS = 19;

/** digitsOf drops everything that is no digit. */
export function digitsOf(text: string): string {
  return text.replace(/\D/g, "");
}

function networkOf(number: string): Network | undefined {
  return NETWORKS.find((n) =>
    n.ranges.some(([digits, from, to]) => {
      if (number.length < digits) return false;
      const lead = Number(number.slice(0, digits));
      return lead >= from && lead <= to;
    }),
  );
}

/** brandOf is the network of a number, as soon as its first digits tell; else "". */
export function brandOf(number: string): Brand {
  return networkOf(number)?.brand ?? "";
}

/** codeLengthOf is how many digits the security code has: three or four, or 0: either. */
export function codeLengthOf(number: string, live: boolean): number {
  const network = networkOf(number);
  return network && (live || network.brand !== "UATP") ? network.code : 0;
}

/** maxDigitsOf is how long a number of this kind can get. */
export function maxDigitsOf(number: string, live: boolean): number {
  const lengths = live ? networkOf(number)?.lengths : undefined;
  return lengths ? Math.max(...lengths) : MAX_DIGITS;
}

/** group writes a number as it stands on the card. */
export function group(number: string): string {
  const sizes = networkOf(number)?.brand === "AMEX" ? [4, 6, 5, 4] : [4, 4, 4, 4, 3];
  const parts: string[] = [];
  let at = 0;
  for (const size of sizes) {
    if (at >= number.length) break;
    parts.push(number.slice(at, at + size));
    at += size;
  }
  return parts.join(" ");
}

/** luhn says whether the last digit checks the others (ISO/IEC 7812-1, annex B). */
export function luhn(number: string): boolean {
  let sum = 0;
  for (let i = 0; i < number.length; i++) {
    let d = Number(number[number.length - 1 - i]);
    if (i % 2 === 1 && (d *= 2) > 9) d -= 9;
    sum += d;
  }
  return sum % 10 === 0;
}

/** numberIsGood is the rule for a whole number. */
export function numberIsGood(number: string, live: boolean): boolean {
  if (number.length < MIN_DIGITS || number.length > MAX_DIGITS) return false;
  if (!live) return true;
  const network = networkOf(number);
  return luhn(number) && (!network || network.lengths.includes(number.length));
}

export interface Expiry {
  month: number;
  year: number;
}

/** readExpiry reads MM/YY or MM/YYYY, with or without blanks; null: it is none. */
export function readExpiry(text: string): Expiry | null {
  const m = /^\s*(\d{1,2})\s*[/.-]\s*(\d{2}|\d{4})\s*$/.exec(text) ?? /^\s*(\d{2})(\d{2}|\d{4})\s*$/.exec(text);
  if (!m) return null;
  const month = Number(m[1]);
  const year = Number(m[2]!.length === 2 ? "20" + m[2] : m[2]);
  return month >= 1 && month <= 12 && year >= 2000 && year <= 2099 ? { month, year } : null;
}

/** hasPassed says whether a card was good until the end of a month that is over. */
export function hasPassed(expiry: Expiry, now: Date): boolean {
  return expiry.year * 12 + expiry.month < now.getFullYear() * 12 + now.getMonth() + 1;
}

/**
 * typeExpiry is what the field shows for what was typed: digits, a slash between them. A
 * month that cannot have a second digit gets its zero.
 */
export function typeExpiry(text: string, deleting: boolean): string {
  const whole = readExpiry(text);
  if (whole && /\d{4}\s*$/.test(text) && digitsOf(text).length === 6) {
    return pad(whole.month) + " / " + String(whole.year).slice(2); // a browser filled in 11/2028
  }
  let digits = digitsOf(text).slice(0, 4);
  if (/^[2-9]/.test(digits) || /^1\s*[/.-]/.test(text.trim())) digits = ("0" + digits).slice(0, 4);
  if (digits.length < 2 || (deleting && digits.length === 2)) return digits;
  return digits.slice(0, 2) + " / " + digits.slice(2);
}

function pad(n: number): string {
  return String(n).padStart(2, "0");
}

/** codeIsGood is the rule for a security code. */
export function codeIsGood(code: string, number: string, live: boolean): boolean {
  const length = codeLengthOf(number, live);
  return length ? code.length === length : code.length === 3 || code.length === 4;
}
