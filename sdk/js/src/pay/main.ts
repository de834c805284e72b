// The pay page, on its own or in a merchant's page.

import { API } from "../api";
import { Attempts } from "../attempt";
import { Checkout } from "./checkout";
import { Parent } from "./parent";
import { languageOf } from "./texts";
import { Screen } from "./view";

/** What must outlive the way to a bank and back, which drops the query. */
const KEPT = ["lang", "view"];

function recall(session: string): URLSearchParams {
  const query = new URLSearchParams(location.search);
  const kept = new URLSearchParams();
  try {
    const key = "oncepay.page." + session;
    const before = new URLSearchParams(sessionStorage.getItem(key) ?? "");
    for (const name of KEPT) {
      const value = query.get(name) ?? before.get(name);
      if (value !== null) kept.set(name, value);
    }
    sessionStorage.setItem(key, kept.toString());
    return kept;
  } catch {
    return query;
  }
}

function start(): void {
  const root = document.getElementById("oncepay");
  if (!root) return;
  const { session = "", publicKey = "", workflow = "", live, merchantName = "", callbackUrl = "", origins = "", language } = root.dataset;
  if (!session) return;
  const framed = window.parent !== window;
  const kept = recall(session);
  const page = { session, publicKey, workflow, live: live === "true", statusOnly: kept.get("view") === "status" };
  const screen = new Screen(
    root,
    { live: page.live, merchantName, callbackURL: callbackUrl, framed },
    languageOf(kept.get("lang")) ?? languageOf(language) ?? "en",
  );
  const parent = framed ? new Parent(new Set([location.origin, ...origins.split(" ").filter(Boolean)])) : null;
  const checkout = new Checkout(page, new API(session, publicKey), new Attempts(session), parent, screen);
  screen.onPay = (card) => void checkout.pay(card);
  screen.onAgain = () => checkout.again();
  if (parent) {
    parent.onInit = (init) => {
      const asked = languageOf(init.language);
      if (asked) screen.speak(asked);
      if (init.publicKey.startsWith("prod_") !== page.live) {
        parent.error({ code: "WRONG_MODE", message: "the public key and the session are not of the same mode" });
      }
    };
    new ResizeObserver(() => parent.resize(Math.ceil(root.getBoundingClientRect().height))).observe(root);
  }
  // Back from elsewhere, the browser may show the page as it was left: ask again.
  addEventListener("pageshow", (event) => {
    if (event.persisted) location.reload();
  });
  void checkout.start();
}

start();
