// The shop's page in the browser: it shows the payment, and takes nobody's word for it.
"use strict";

(() => {
  const language = document.documentElement.lang;
  const query = "?lang=" + encodeURIComponent(language);
  const orders = "/demo/orders/";

  const place = document.getElementById("payment");
  if (place) {
    const { session, country, publicKey } = place.dataset;
    const checkout = Oncepay.initialize(publicKey);
    checkout.startCheckout({
      checkoutSession: session,
      elementSelector: "#payment",
      countryCode: country,
      language,
      // For orders that the backend pays. The nonce is that of this attempt, however often
      // this is called.
      createPayment: async (token, { idempotencyKey }) => {
        const response = await fetch(orders + session + "/payments", {
          method: "POST",
          headers: { "Content-Type": "application/json" },
          body: JSON.stringify({ token, nonce: idempotencyKey }),
        });
        if (!response.ok) throw new Error("the shop's backend answered " + response.status);
        checkout.continuePayment();
      },
      // Whether it is paid, the next page asks the backend.
      onResult: ({ status }) => {
        if (status === "SUCCEEDED") location.assign(orders + session + "/thanks" + query);
      },
      onError: ({ code }) => {
        if (code === "CREATE_PAYMENT_FAILED") return; // the form says so, and can be sent again
        const problem = document.getElementById("problem");
        problem.textContent = problem.dataset.text;
      },
    });
  }

  const end = document.querySelector("[data-outcome=waiting]");
  if (end) {
    const look = async () => {
      try {
        const response = await fetch(orders + end.dataset.session + "/status", { cache: "no-store" });
        const { outcome } = await response.json();
        if (response.ok && outcome !== "waiting") return location.reload();
      } catch {
        // Offline, or the shop is: ask again.
      }
      setTimeout(look, 1500);
    };
    setTimeout(look, 1500);
  }
})();
