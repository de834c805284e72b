// Everything the page says, in the languages it speaks.

export const en = {
  loading: "Loading the payment",
  test: "Test mode: no money moves",
  order: "Order",
  number: "Card number",
  expiry: "Expiry date",
  expiryHint: "MM / YY",
  code: "Security code",
  codeHint: "3 or 4 digits",
  holder: "Name on card",
  badNumber: "Check the card number.",
  noNumber: "Enter the card number.",
  badExpiry: "Enter month and year, as in 09 / 28.",
  pastExpiry: "This card has expired.",
  badCode: "Check the security code.",
  noHolder: "Enter the name on the card.",
  pay: "Pay {amount}",
  paying: "Paying…",
  secure: "Your card details go to the payment service only, never to the shop.",
  checkingTitle: "We are checking your payment",
  checkingText: "Please do not pay again. This page finds out what happened, also after it was closed and opened again.",
  offline: "You seem to be offline. We go on as soon as you are back.",
  pendingTitle: "Your payment is being processed",
  pendingText: "Please do not pay again. The bank has not decided yet; this page tells you as soon as it has.",
  challengeTitle: "Your bank wants to be sure it is you",
  challengeText: "Confirm the payment on your bank's page. You will come back here.",
  challengeGo: "Continue to your bank",
  successTitle: "Payment complete",
  successText: "You have paid {amount}.",
  paidWith: "Card",
  reference: "Reference",
  back: "Back to the shop",
  declinedTitle: "The payment was declined",
  declinedText: "You have not been charged.",
  again: "Try another card",
  reasonFunds: "There is not enough money on this card.",
  reasonExpired: "This card has expired.",
  reasonCode: "The security code was not right.",
  reasonCard: "The card details were not right.",
  reasonBank: "Your bank did not agree. It can tell you why.",
  reasonAuthentication: "Your bank could not confirm that it was you.",
  reasonError: "Something went wrong between us and the bank.",
  canceledTitle: "The payment was cancelled",
  canceledText: "You have not been charged.",
  refundedTitle: "The payment was refunded",
  refundedText: "The money goes back to your card.",
  payExpiredTitle: "The payment was not confirmed in time",
  payExpiredText: "You have not been charged.",
  expiredTitle: "This page has expired",
  expiredText: "Nothing was charged here. Go back to the shop to start again.",
  elsewhereTitle: "This payment is completed in the shop",
  elsewhereText: "Please go back to the shop's page and pay there.",
  nothingTitle: "Nothing has been paid yet",
  nothingText: "This page tells you as soon as there is a payment.",
  errorTitle: "We cannot show this payment",
  errorText: "Please ask the shop before you pay again.",
  notSent: "There is no connection. Nothing was charged: you can try again.",
  refused: "The payment could not be made, and nothing was charged. Check the card details, or try another card.",
  tooMany: "There were too many tries. Wait a minute, and try again. Nothing was charged.",
  shopFailed: "The shop did not start the payment. You can try again: you will not pay twice.",
  wrongFields: "Please check what is marked.",
};

export type Texts = typeof en;
export type TextKey = keyof Texts;

const es: Texts = {
  loading: "Cargando el pago",
  test: "Modo de prueba: no se cobra nada",
  order: "Pedido",
  number: "Número de tarjeta",
  expiry: "Vencimiento",
  expiryHint: "MM / AA",
  code: "Código de seguridad",
  codeHint: "3 o 4 dígitos",
  holder: "Nombre en la tarjeta",
  badNumber: "Revisa el número de tarjeta.",
  noNumber: "Escribe el número de tarjeta.",
  badExpiry: "Escribe mes y año, como 09 / 28.",
  pastExpiry: "Esta tarjeta ha vencido.",
  badCode: "Revisa el código de seguridad.",
  noHolder: "Escribe el nombre que figura en la tarjeta.",
  pay: "Pagar {amount}",
  paying: "Pagando…",
  secure: "Los datos de tu tarjeta llegan solo al servicio de pago, nunca a la tienda.",
  checkingTitle: "Estamos comprobando tu pago",
  checkingText: "No pagues otra vez. Esta página averigua qué ha pasado, también si se cierra y se vuelve a abrir.",
  offline: "Parece que no tienes conexión. Seguimos en cuanto vuelva.",
  pendingTitle: "Tu pago se está procesando",
  pendingText: "No pagues otra vez. El banco aún no ha decidido; esta página te lo dirá en cuanto lo haga.",
  challengeTitle: "Tu banco quiere asegurarse de que eres tú",
  challengeText: "Confirma el pago en la página de tu banco. Después volverás aquí.",
  challengeGo: "Continuar en tu banco",
  successTitle: "Pago completado",
  successText: "Has pagado {amount}.",
  paidWith: "Tarjeta",
  reference: "Referencia",
  back: "Volver a la tienda",
  declinedTitle: "El pago fue rechazado",
  declinedText: "No se te ha cobrado nada.",
  again: "Probar con otra tarjeta",
  reasonFunds: "Esta tarjeta no tiene fondos suficientes.",
  reasonExpired: "Esta tarjeta ha vencido.",
  reasonCode: "El código de seguridad no era correcto.",
  reasonCard: "Los datos de la tarjeta no eran correctos.",
  reasonBank: "Tu banco no lo aceptó. Puede decirte por qué.",
  reasonAuthentication: "Tu banco no pudo confirmar que eras tú.",
  reasonError: "Algo falló entre nosotros y el banco.",
  canceledTitle: "El pago fue cancelado",
  canceledText: "No se te ha cobrado nada.",
  refundedTitle: "El pago fue reembolsado",
  refundedText: "El dinero vuelve a tu tarjeta.",
  payExpiredTitle: "El pago no se confirmó a tiempo",
  payExpiredText: "No se te ha cobrado nada.",
  expiredTitle: "Esta página ha caducado",
  expiredText: "Aquí no se ha cobrado nada. Vuelve a la tienda para empezar de nuevo.",
  elsewhereTitle: "Este pago se completa en la tienda",
  elsewhereText: "Vuelve a la página de la tienda y paga allí.",
  nothingTitle: "Aún no se ha pagado nada",
  nothingText: "Esta página te avisará en cuanto haya un pago.",
  errorTitle: "No podemos mostrar este pago",
  errorText: "Pregunta a la tienda antes de pagar otra vez.",
  notSent: "No hay conexión. No se ha cobrado nada: puedes intentarlo de nuevo.",
  refused: "No se pudo hacer el pago y no se ha cobrado nada. Revisa los datos o prueba con otra tarjeta.",
  tooMany: "Hubo demasiados intentos. Espera un minuto e inténtalo de nuevo. No se ha cobrado nada.",
  shopFailed: "La tienda no inició el pago. Puedes intentarlo de nuevo: no pagarás dos veces.",
  wrongFields: "Revisa lo que está marcado.",
};

const pt: Texts = {
  loading: "Carregando o pagamento",
  test: "Modo de teste: nada é cobrado",
  order: "Pedido",
  number: "Número do cartão",
  expiry: "Validade",
  expiryHint: "MM / AA",
  code: "Código de segurança",
  codeHint: "3 ou 4 dígitos",
  holder: "Nome no cartão",
  badNumber: "Confira o número do cartão.",
  noNumber: "Digite o número do cartão.",
  badExpiry: "Digite mês e ano, como 09 / 28.",
  pastExpiry: "Este cartão está vencido.",
  badCode: "Confira o código de segurança.",
  noHolder: "Digite o nome que está no cartão.",
  pay: "Pagar {amount}",
  paying: "Pagando…",
  secure: "Os dados do seu cartão vão apenas para o serviço de pagamento, nunca para a loja.",
  checkingTitle: "Estamos verificando seu pagamento",
  checkingText: "Não pague de novo. Esta página descobre o que aconteceu, mesmo se for fechada e aberta outra vez.",
  offline: "Parece que você está sem conexão. Continuamos assim que ela voltar.",
  pendingTitle: "Seu pagamento está sendo processado",
  pendingText: "Não pague de novo. O banco ainda não decidiu; esta página avisa assim que ele decidir.",
  challengeTitle: "Seu banco quer ter certeza de que é você",
  challengeText: "Confirme o pagamento na página do seu banco. Depois você volta para cá.",
  challengeGo: "Continuar no seu banco",
  successTitle: "Pagamento concluído",
  successText: "Você pagou {amount}.",
  paidWith: "Cartão",
  reference: "Referência",
  back: "Voltar à loja",
  declinedTitle: "O pagamento foi recusado",
  declinedText: "Nada foi cobrado.",
  again: "Tentar outro cartão",
  reasonFunds: "Este cartão não tem saldo suficiente.",
  reasonExpired: "Este cartão está vencido.",
  reasonCode: "O código de segurança não estava certo.",
  reasonCard: "Os dados do cartão não estavam certos.",
  reasonBank: "Seu banco não aceitou. Ele pode dizer por quê.",
  reasonAuthentication: "Seu banco não pôde confirmar que era você.",
  reasonError: "Algo deu errado entre nós e o banco.",
  canceledTitle: "O pagamento foi cancelado",
  canceledText: "Nada foi cobrado.",
  refundedTitle: "O pagamento foi reembolsado",
  refundedText: "O dinheiro volta para o seu cartão.",
  payExpiredTitle: "O pagamento não foi confirmado a tempo",
  payExpiredText: "Nada foi cobrado.",
  expiredTitle: "Esta página expirou",
  expiredText: "Nada foi cobrado aqui. Volte à loja para começar de novo.",
  elsewhereTitle: "Este pagamento é concluído na loja",
  elsewhereText: "Volte à página da loja e pague lá.",
  nothingTitle: "Nada foi pago ainda",
  nothingText: "Esta página avisa assim que houver um pagamento.",
  errorTitle: "Não podemos mostrar este pagamento",
  errorText: "Pergunte à loja antes de pagar de novo.",
  notSent: "Não há conexão. Nada foi cobrado: você pode tentar de novo.",
  refused: "O pagamento não pôde ser feito e nada foi cobrado. Confira os dados ou tente outro cartão.",
  tooMany: "Foram tentativas demais. Espere um minuto e tente de novo. Nada foi cobrado.",
  shopFailed: "A loja não iniciou o pagamento. Você pode tentar de novo: não vai pagar duas vezes.",
  wrongFields: "Confira o que está marcado.",
};

export type Language = "en" | "es" | "pt";

const TABLES: Record<Language, Texts> = { en, es, pt };

/** languageOf is the one of ours that a language tag asks for; null: none of them. */
export function languageOf(tag: string | null | undefined): Language | null {
  const primary = (tag ?? "").toLowerCase().split(/[-_]/)[0] ?? "";
  return primary in TABLES ? (primary as Language) : null;
}

export function textsOf(language: Language): Texts {
  return TABLES[language];
}

/**
 * formatAmount writes an amount as it is written where the payer is. It never rounds: the
 * API has at most four decimals.
 */
export function formatAmount(value: number, currency: string, language: Language, country: string): string {
  for (const locale of [language + "-" + country, language]) {
    try {
      return new Intl.NumberFormat(locale, { style: "currency", currency, maximumFractionDigits: 4 }).format(value);
    } catch {
      // A country or a currency that this browser does not know.
    }
  }
  return value + " " + currency;
}

/** reasonText is what a payer may hear of why a payment failed. */
export function reasonText(code: string, status: string): TextKey {
  switch (code) {
    case "INSUFFICIENT_FUNDS":
      return "reasonFunds";
    case "EXPIRED_CARD":
      return "reasonExpired";
    case "INVALID_SECURITY_CODE":
      return "reasonCode";
    case "INVALID_CARD_NUMBER":
    case "INVALID_CARD_DATA":
    case "BAD_FILLED_INFO":
      return "reasonCard";
    case "AUTHENTICATION_FAILED_THREE_D_SECURE":
    case "AUTHENTICATION_ATTEMPT":
    case "REJECTED_THREE_D_SECURE_REQUIRED":
    case "THREE_D_SECURE_REQUIRED":
      return "reasonAuthentication";
  }
  return status === "DECLINED" ? "reasonBank" : "reasonError";
}
