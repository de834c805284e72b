package providers

// The classes of response codes: the status of the transaction that a code
// belongs to.
const (
	ClassSucceeded = "SUCCEEDED"
	ClassDeclined  = "DECLINED"
	ClassRejected  = "REJECTED"
	ClassError     = "ERROR"
)

// codeInfo is what a response code means to a merchant.
type codeInfo struct{ class, message string }

// unknownCode is for a code that the contract does not have.
const unknownCode = "The provider gave no known reason"

// codes are the contract's response codes. Some it lists under several classes;
// here DECLINED wins over REJECTED, and REJECTED over ERROR, because a decline
// is the answer a shop already handles.
var codes = map[string]codeInfo{
	"SUCCEEDED":                {ClassSucceeded, "Transaction successful"},
	"FRAUD_VERIFIED":           {ClassSucceeded, "Fraud screening passed"},
	"SUCCEEDED_THREE_D_SECURE": {ClassSucceeded, "Cardholder authenticated"},

	// Declined, and a retry may work.
	"ACQUIRE_CONTINGENCY":              {ClassDeclined, "The acquirer or the issuer cannot be reached at the moment"},
	"BANK_NOT_SUPPORTED":               {ClassDeclined, "The issuing bank is not supported"},
	"CALL_FOR_AUTHORIZE":               {ClassDeclined, "The cardholder has to call the bank to authorize this payment"},
	"CANCELLED_BY_USER":                {ClassDeclined, "The customer cancelled the payment"},
	"DECLINED_BY_BANK":                 {ClassDeclined, "The bank declined the payment"},
	"DECLINED_BY_PROVIDER":             {ClassDeclined, "The provider declined the payment"},
	"DISABLED":                         {ClassDeclined, "The card or account is disabled"},
	"DO_NOT_HONOR":                     {ClassDeclined, "The bank declined the payment without giving a reason"},
	"DUPLICATED_TRANSACTION":           {ClassDeclined, "The bank took this for a repeated payment"},
	"EXPIRED":                          {ClassDeclined, "The time to complete the payment ran out"},
	"FIRST_USE":                        {ClassDeclined, "The card has to be activated first"},
	"FRAUD_VALIDATION":                 {ClassDeclined, "The payment was declined on suspicion of fraud"},
	"INSUFFICIENT_FUNDS":               {ClassDeclined, "The account does not hold enough money"},
	"INVALID_AMOUNT":                   {ClassDeclined, "The amount is not acceptable"},
	"INVALID_ISSUER":                   {ClassDeclined, "No issuer was found for the card"},
	"INVALID_MERCHANT":                 {ClassDeclined, "The merchant is not known to the acquirer"},
	"INVALID_STATUS":                   {ClassDeclined, "The transaction's status does not allow this"},
	"INVALID_RESPONSE_FORMAT":          {ClassDeclined, "The bank's answer could not be read"},
	"ISSUER_VIOLATION":                 {ClassDeclined, "The payment breaks a rule of the issuer"},
	"REJECTED_THREE_D_SECURE_REQUIRED": {ClassDeclined, "The bank wants the cardholder to be authenticated"},
	"REFER_TO_CARD_ISSUER":             {ClassDeclined, "The cardholder has to ask the card's issuer"},
	"REQUESTS_EXCEEDED":                {ClassDeclined, "The card was used too often"},
	"RESTRICTED_BY_BANK":               {ClassDeclined, "The bank restricts this card"},
	"TERMINAL_ERROR":                   {ClassDeclined, "The payment is not permitted to this terminal"},
	"THREE_D_SECURE_REQUIRED":          {ClassDeclined, "Cardholder authentication is required"},
	"UNKNOWN_ERROR":                    {ClassDeclined, "The payment was declined for an unknown reason"},

	// Declined, and the same request will be declined again.
	"BAD_FILLED_INFO":            {ClassDeclined, "Some of the payment's details are filled in wrongly"},
	"COUNTRY_NOT_SUPPORTED":      {ClassDeclined, "The country is not supported"},
	"CURRENCY_NOT_ALLOWED":       {ClassDeclined, "The currency is not allowed"},
	"EXPIRED_CARD":               {ClassDeclined, "The card has expired"},
	"INVALID_CARD_DATA":          {ClassDeclined, "The card's details are wrong"},
	"INVALID_CARD_NUMBER":        {ClassDeclined, "The card number is wrong"},
	"INVALID_API":                {ClassDeclined, "The provider does not offer this operation"},
	"INVALID_API_VERSION":        {ClassDeclined, "The provider does not offer this version of the operation"},
	"INVALID_CREDENTIALS":        {ClassDeclined, "The provider did not accept our credentials"},
	"INVALID_PARAMETERS":         {ClassDeclined, "A parameter of the payment is invalid"},
	"INVALID_SECURITY_CODE":      {ClassDeclined, "The card's security code is wrong"},
	"INVALID_TRANSACTION":        {ClassDeclined, "The transaction is not valid for this card"},
	"MISSING_PARAMETERS":         {ClassDeclined, "A parameter of the payment is missing"},
	"NO_RETRY_LIFE_CYCLE":        {ClassDeclined, "The card is no longer in use; do not try again"},
	"NO_RETRY_POLICY":            {ClassDeclined, "The issuer's policy forbids it; do not try again"},
	"NO_RETRY_SECURITY":          {ClassDeclined, "Declined for security; do not try again"},
	"RETRY_AFTER_1_H":            {ClassDeclined, "Try again after one hour"},
	"RETRY_AFTER_24_H":           {ClassDeclined, "Try again after 24 hours"},
	"RETRY_AFTER_2_D":            {ClassDeclined, "Try again after two days"},
	"RETRY_AFTER_4_D":            {ClassDeclined, "Try again after four days"},
	"RETRY_AFTER_6_D":            {ClassDeclined, "Try again after six days"},
	"RETRY_AFTER_8_D":            {ClassDeclined, "Try again after eight days"},
	"RETRY_AFTER_10_D":           {ClassDeclined, "Try again after ten days"},
	"REPORTED_LOST":              {ClassDeclined, "The card was reported lost"},
	"REPORTED_STOLEN":            {ClassDeclined, "The card was reported stolen"},
	"TRANSACTION_NOT_FOUND":      {ClassDeclined, "The bank does not know the transaction"},
	"UNAVAILABLE_PAYMENT_METHOD": {ClassDeclined, "The payment method is not available"},
	"UNSUPPORTED_OPERATION":      {ClassDeclined, "The operation is not supported for this card"},
	"USER_RESTRICTION":           {ClassDeclined, "The cardholder may not make this payment"},

	// Declined; the contract does not say whether a retry may work.
	"ACCOUNT_STATUS":                       {ClassDeclined, "The account's status does not allow the payment"},
	"AUTHENTICATION_ATTEMPT":               {ClassDeclined, "Cardholder authentication was only attempted"},
	"AUTHENTICATION_FAILED_THREE_D_SECURE": {ClassDeclined, "Cardholder authentication failed"},
	"FRAUD_VERIFICATION_DECLINED":          {ClassDeclined, "Fraud screening declined the payment"},

	"INVALID_REQUEST": {ClassRejected, "The request is invalid"},
	"INTERNAL_ERROR":  {ClassRejected, "The payment could not be processed"},

	// Errors at the provider after which a retry may work.
	"ERROR":                   {ClassError, "The payment ended in an error"},
	"PROVIDER_ERROR":          {ClassError, "The provider ended the payment with an error"},
	"PROVIDER_INTERNAL_ERROR": {ClassError, "The provider had an internal error"},
	"PROVIDER_TIMEOUT":        {ClassError, "The provider's own partner did not answer in time"},
	"PROVIDER_UNKNOWN_ERROR":  {ClassError, "The provider ended the payment with an unknown error"},

	// Errors at the provider that a retry will meet again.
	"PROVIDER_INVALID_CREDENTIALS": {ClassError, "The provider did not accept the credentials"},
	"PROVIDER_INVALID_REQUEST":     {ClassError, "The provider did not accept the request"},
	"OPERATION_NOT_SUPPORTED":      {ClassError, "The provider does not support the operation"},
	"TO_REVERSE":                   {ClassError, "The payment failed and is to be reversed"},
	"PROVIDER_INVALID_RESPONSE":    {ClassError, "The provider received an answer it could not read"},
	"PROVIDER_INVALID_API_VERSION": {ClassError, "The provider does not support this version of its interface"},
}

// ClassOf tells the class of a response code: ClassSucceeded, ClassDeclined,
// ClassRejected or ClassError. The match is exact; known is false for a code that
// belongs to none of them.
func ClassOf(code string) (class string, known bool) {
	c, known := codes[code]
	return c.class, known
}

// Message says a response code in words a merchant can show.
func Message(code string) string {
	if c, ok := codes[code]; ok {
		return c.message
	}
	return unknownCode
}
