// An attempt to pay: one nonce, and the one-time token that it pays with.
//
// The nonce is made and stored before anything is sent. From then on every try, after a
// lost answer, a reload, a crash, the back button or in a second tab, sends the same nonce,
// and the server moves money at most once for it. A new one is made only when the old one
// is known to have ended without a payment.
//
// What is stored is no card datum: a one-time token pays this session only, and only once.

/** One attempt to pay a session. */
export interface Attempt {
  /** The idempotency key: a UUID. */
  nonce: string;
  /** The one-time token; null until the card has been handed in. */
  token: string | null;
  /** The session's latest payment before this attempt; null: there was none. */
  after: string | null;
  /** When it was made, by this device's clock, in milliseconds. Only tidying depends on it. */
  at: number;
}

const PREFIX = "oncepay.attempt.";

/** Sessions last for hours; what is left of one after a week is of no use. */
const STALE = 7 * 24 * 3600 * 1000;

/** newNonce is a random UUID (version 4), also where crypto.randomUUID needs TLS. */
export function newNonce(): string {
  if (typeof crypto.randomUUID === "function") return crypto.randomUUID();
  const b = crypto.getRandomValues(new Uint8Array(16));
  b[6] = (b[6]! & 0x0f) | 0x40;
  b[8] = (b[8]! & 0x3f) | 0x80;
  const hex = Array.from(b, (x) => x.toString(16).padStart(2, "0")).join("");
  return [hex.slice(0, 8), hex.slice(8, 12), hex.slice(12, 16), hex.slice(16, 20), hex.slice(20)].join("-");
}

/** browserStorage is localStorage, or null where the browser does not let us have it. */
export function browserStorage(): Storage | null {
  try {
    const storage = window.localStorage;
    storage.setItem("oncepay.probe", "1");
    storage.removeItem("oncepay.probe");
    return storage;
  } catch {
    return null;
  }
}

/** Attempts keeps the attempt of one session. */
export class Attempts {
  private readonly key: string;
  private readonly lock: string;
  /** The attempt where there is no storage: it lives as long as the page. */
  private memory: Attempt | null = null;

  constructor(
    session: string,
    private storage: Storage | null = browserStorage(),
    private readonly locks: LockManager | undefined = navigator.locks,
  ) {
    this.key = PREFIX + session;
    this.lock = "oncepay.pay." + session;
    this.tidy();
  }

  /** current is the attempt whose end is not known yet, or null. */
  current(): Attempt | null {
    if (!this.storage) return this.memory;
    try {
      return parse(this.storage.getItem(this.key));
    } catch {
      return this.memory;
    }
  }

  /** open is the attempt under way, or a new one, which is stored when this returns. */
  open(after: string | null): Attempt {
    const open = this.current();
    if (open) return open;
    const attempt = { nonce: newNonce(), token: null, after, at: Date.now() };
    this.write(attempt);
    return attempt;
  }

  /** keep stores the token that the attempt pays with; null takes it back. */
  keep(attempt: Attempt, token: string | null): Attempt {
    const changed = { ...attempt, token };
    this.write(changed);
    return changed;
  }

  /** end forgets an attempt that has ended. Another one that has begun since stays. */
  end(nonce: string): void {
    if (this.current()?.nonce !== nonce) return;
    this.memory = null;
    try {
      this.storage?.removeItem(this.key);
    } catch {
      this.storage = null;
    }
  }

  /** onOther calls back when another tab has handed in a card for this session. */
  onOther(callback: () => void): void {
    addEventListener("storage", (event) => {
      if (event.key === this.key && parse(event.newValue)?.token) callback();
    });
  }

  /**
   * alone runs work while no other tab of this browser does the same for the session, and
   * calls waiting first if one does; work is told so. A tab that dies lets the next one in.
   * Without Web Locks it runs at once: two tabs may then make a nonce each, and the server
   * lets a session have one payment.
   */
  async alone<T>(work: (waited: boolean) => Promise<T>, waiting: () => void): Promise<T> {
    if (!this.locks) return work(false);
    let begun = false;
    const run = (waited: boolean) => {
      begun = true;
      return work(waited);
    };
    try {
      const free = await this.locks.request(this.lock, { ifAvailable: true }, async (lock) =>
        lock ? { value: await run(false) } : null,
      );
      if (free) return free.value;
      waiting();
      return await this.locks.request(this.lock, () => run(true));
    } catch (error) {
      if (begun) throw error;
      return run(false); // locks are refused where storage is
    }
  }

  private write(attempt: Attempt): void {
    this.memory = attempt;
    try {
      this.storage?.setItem(this.key, JSON.stringify(attempt));
    } catch {
      this.storage = null; // full, or taken away: this page's memory has to do
    }
  }

  private tidy(): void {
    try {
      for (let i = (this.storage?.length ?? 0) - 1; i >= 0; i--) {
        const key = this.storage?.key(i);
        if (!key?.startsWith(PREFIX) || key === this.key) continue;
        const attempt = parse(this.storage?.getItem(key) ?? null);
        if (!attempt || Date.now() - attempt.at > STALE) this.storage?.removeItem(key);
      }
    } catch {
      // Old entries do no harm.
    }
  }
}

function parse(text: string | null): Attempt | null {
  if (!text) return null;
  try {
    const a = JSON.parse(text) as Partial<Attempt>;
    if (typeof a.nonce !== "string" || a.nonce.length !== 36) return null;
    return {
      nonce: a.nonce,
      token: typeof a.token === "string" ? a.token : null,
      after: typeof a.after === "string" ? a.after : null,
      at: typeof a.at === "number" ? a.at : 0,
    };
  } catch {
    return null;
  }
}
