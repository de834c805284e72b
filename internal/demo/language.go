package demo

import (
	"strings"

	"github.com/shopspring/decimal"
)

// language is a language of the shop, with the country that it sells to.
type language struct {
	tag, country, currency string
	price                  decimal.Decimal // of one, in major units
	sign, group, point     string          // how amounts are written there

	Name, Shop, Demo                             string
	Product, Praise, About                       string
	Each, Quantity, Buy                          string
	Rehearse, RehearseText, Trouble              string
	Troubles                                     map[string]string
	Payer, PayerBrowser, PayerBackend            string
	Checkout, Order, Total, Pay, PayError        string
	Cards, CardsText, Number, Happens            string
	CardPays, CardPoor, CardStolen, CardAsked    string
	Thanks, ThanksText, Waiting, WaitingText     string
	Failed, FailedText, Unpaid, UnpaidText       string
	Over, OverText, Again, Another, Backend      string
	Missing, MissingText, Unwell, UnwellText, To string
}

// Tag is the language, as in the attribute lang.
func (l *language) Tag() string { return l.tag }

// Price is what one costs.
func (l *language) Price() string { return l.write(l.price) }

// write writes an amount as it is written in the country. It is for a few hundred of
// something, with two decimals.
func (l *language) write(amount decimal.Decimal) string {
	whole, cents, _ := strings.Cut(amount.StringFixed(2), ".")
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + l.group + whole[i:]
	}
	return l.sign + whole + l.point + cents
}

// tags are the languages in the order of the shop's menu; the first is for who reads none of
// them.
var tags = []string{"en", "es", "pt"}

// languageFor is the one that the address asks for, or else the browser's first choice that
// there is. The order of a browser's list is its order of preference, whatever its weights
// say: browsers write it so.
func languageFor(asked, acceptLanguage string) *language {
	for tag := range strings.SplitSeq(asked+","+acceptLanguage, ",") {
		primary, _, _ := strings.Cut(strings.ToLower(strings.TrimSpace(tag)), "-")
		primary, _, _ = strings.Cut(primary, ";")
		if l := languages[primary]; l != nil {
			return l
		}
	}
	return languages[tags[0]]
}

var languages = map[string]*language{
	"en": {
		tag: "en", country: "US", currency: "USD", price: decimal.RequireFromString("18.50"), sign: "$", group: ",", point: ".",
		Name: "English", Shop: "Morning Cup", Demo: "A rehearsal: no money moves, and no cup is sent.",
		Product: "Stoneware cup", Praise: "The cup that you reach for first", About: "Thrown by hand, glazed twice, and a good size for a long morning. It keeps its warmth, and its place in the cupboard.",
		Each: "each", Quantity: "How many", Buy: "Buy",
		Rehearse: "Rehearse trouble", RehearseText: "Choose what goes wrong at the bank. Then click twice, reload, close the tab, go offline: you are charged once.",
		Trouble: "The bank", Troubles: map[string]string{
			"none": "answers at once", "slow": "takes three seconds to answer", "silent": "charges, and never answers (half a minute)",
			"challenge": "asks the payer to confirm", "pending": "accepts, and decides five seconds later",
		},
		Payer: "Who sends the payment", PayerBrowser: "The shopper's browser (SDK_SEAMLESS)", PayerBackend: "The shop's backend, with a one-time token (SDK_CHECKOUT)",
		Checkout: "Checkout", Order: "Order", Total: "Total", Pay: "Payment", PayError: "The payment form cannot be used now. You have not been charged by trying; please reload the page.",
		Cards: "Test cards", CardsText: "Any future date, such as 11/28, any security code, such as 123, and any name.", Number: "Number", Happens: "What happens",
		CardPays: "pays", CardPoor: "declined: no funds", CardStolen: "declined: reported stolen", CardAsked: "asks for a one-time code (1234)",
		Thanks: "Thank you", ThanksText: "Your order is paid. It would be on its way by now.",
		Waiting: "Your payment is being processed", WaitingText: "Please do not pay again. This page says so as soon as the bank has decided.",
		Failed: "The payment was declined", FailedText: "You have not been charged. You can try again with another card.",
		Unpaid: "This order is not paid", UnpaidText: "Nothing has been charged.",
		Over: "This order is closed", OverText: "Its payment was cancelled, refunded or has expired.",
		Again: "Back to the payment", Another: "Buy another cup", Backend: "The shop's backend has asked the payments API for this; it does not take the browser's word.",
		Missing: "There is no such order", MissingText: "It may be older than five hours.", Unwell: "The shop has a problem", UnwellText: "It cannot reach its payments service, or did not understand your request. Nothing was charged by this page.", To: "To the shop",
	},
	"es": {
		tag: "es", country: "MX", currency: "MXN", price: decimal.RequireFromString("320.00"), sign: "$", group: ",", point: ".",
		Name: "Español", Shop: "Taza de la Mañana", Demo: "Un ensayo: no se mueve dinero ni se envía ninguna taza.",
		Product: "Taza de gres", Praise: "La taza que eliges primero", About: "Torneada a mano, con doble esmalte y del tamaño justo para una mañana larga. Conserva el calor, y su lugar en la alacena.",
		Each: "cada una", Quantity: "Cuántas", Buy: "Comprar",
		Rehearse: "Ensayar fallos", RehearseText: "Elige qué falla en el banco. Después haz doble clic, recarga, cierra la pestaña, desconéctate: se te cobra una sola vez.",
		Trouble: "El banco", Troubles: map[string]string{
			"none": "responde enseguida", "slow": "tarda tres segundos en responder", "silent": "cobra y nunca responde (medio minuto)",
			"challenge": "pide al pagador que confirme", "pending": "acepta, y decide cinco segundos después",
		},
		Payer: "Quién envía el pago", PayerBrowser: "El navegador del comprador (SDK_SEAMLESS)", PayerBackend: "El servidor de la tienda, con un token de un solo uso (SDK_CHECKOUT)",
		Checkout: "Pagar el pedido", Order: "Pedido", Total: "Total", Pay: "Pago", PayError: "El formulario de pago no se puede usar ahora. Por intentarlo no se te ha cobrado nada; recarga la página.",
		Cards: "Tarjetas de prueba", CardsText: "Cualquier fecha futura, como 11/28, cualquier código, como 123, y cualquier nombre.", Number: "Número", Happens: "Qué ocurre",
		CardPays: "paga", CardPoor: "rechazada: sin fondos", CardStolen: "rechazada: robada", CardAsked: "pide un código de un solo uso (1234)",
		Thanks: "Gracias", ThanksText: "Tu pedido está pagado. Ya estaría en camino.",
		Waiting: "Tu pago se está procesando", WaitingText: "No pagues otra vez. Esta página te avisará en cuanto el banco decida.",
		Failed: "El pago fue rechazado", FailedText: "No se te ha cobrado nada. Puedes probar con otra tarjeta.",
		Unpaid: "Este pedido no está pagado", UnpaidText: "No se ha cobrado nada.",
		Over: "Este pedido está cerrado", OverText: "Su pago fue cancelado, reembolsado o ha caducado.",
		Again: "Volver al pago", Another: "Comprar otra taza", Backend: "El servidor de la tienda lo ha preguntado a la API de pagos; no se fía del navegador.",
		Missing: "No existe ese pedido", MissingText: "Puede que tenga más de cinco horas.", Unwell: "La tienda tiene un fallo", UnwellText: "No alcanza su servicio de pagos, o no entendió tu solicitud. Esta página no ha cobrado nada.", To: "A la tienda",
	},
	"pt": {
		tag: "pt", country: "BR", currency: "BRL", price: decimal.RequireFromString("95.00"), sign: "R$ ", group: ".", point: ",",
		Name: "Português", Shop: "Xícara da Manhã", Demo: "Um ensaio: nenhum valor é movimentado e nenhuma xícara é enviada.",
		Product: "Xícara de grés", Praise: "A xícara que você pega primeiro", About: "Torneada à mão, esmaltada duas vezes e do tamanho certo para uma manhã longa. Guarda o calor, e o lugar no armário.",
		Each: "cada", Quantity: "Quantas", Buy: "Comprar",
		Rehearse: "Ensaiar falhas", RehearseText: "Escolha o que dá errado no banco. Depois clique duas vezes, recarregue, feche a aba, fique sem conexão: você paga uma vez só.",
		Trouble: "O banco", Troubles: map[string]string{
			"none": "responde na hora", "slow": "leva três segundos para responder", "silent": "cobra e nunca responde (meio minuto)",
			"challenge": "pede que o pagador confirme", "pending": "aceita, e decide cinco segundos depois",
		},
		Payer: "Quem envia o pagamento", PayerBrowser: "O navegador do comprador (SDK_SEAMLESS)", PayerBackend: "O servidor da loja, com um token de uso único (SDK_CHECKOUT)",
		Checkout: "Finalizar a compra", Order: "Pedido", Total: "Total", Pay: "Pagamento", PayError: "O formulário de pagamento não pode ser usado agora. A tentativa não cobrou nada; recarregue a página.",
		Cards: "Cartões de teste", CardsText: "Qualquer data futura, como 11/28, qualquer código, como 123, e qualquer nome.", Number: "Número", Happens: "O que acontece",
		CardPays: "paga", CardPoor: "recusado: sem saldo", CardStolen: "recusado: roubado", CardAsked: "pede um código de uso único (1234)",
		Thanks: "Obrigado", ThanksText: "Seu pedido está pago. A esta altura, já estaria a caminho.",
		Waiting: "Seu pagamento está sendo processado", WaitingText: "Não pague de novo. Esta página avisa assim que o banco decidir.",
		Failed: "O pagamento foi recusado", FailedText: "Nada foi cobrado. Você pode tentar com outro cartão.",
		Unpaid: "Este pedido não está pago", UnpaidText: "Nada foi cobrado.",
		Over: "Este pedido está encerrado", OverText: "O pagamento foi cancelado, reembolsado ou expirou.",
		Again: "Voltar ao pagamento", Another: "Comprar outra xícara", Backend: "O servidor da loja perguntou isso à API de pagamentos; ele não confia no navegador.",
		Missing: "Esse pedido não existe", MissingText: "Ele pode ter mais de cinco horas.", Unwell: "A loja está com um problema", UnwellText: "Ela não alcança seu serviço de pagamentos, ou não entendeu seu pedido. Esta página não cobrou nada.", To: "Para a loja",
	},
}
