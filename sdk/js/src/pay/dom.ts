// Making elements.

const SVG = "http://www.w3.org/2000/svg";

/** el makes an element with attributes and children. */
export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** svg makes a drawing: the view box, then one [tag, attributes] a shape. */
export function svg(className: string, viewBox: string, ...shapes: [string, Record<string, string>, string?][]): SVGElement {
  const drawing = document.createElementNS(SVG, "svg");
  drawing.setAttribute("class", className);
  drawing.setAttribute("viewBox", viewBox);
  drawing.setAttribute("aria-hidden", "true");
  drawing.setAttribute("focusable", "false");
  for (const [tag, attributes, text] of shapes) {
    const shape = document.createElementNS(SVG, tag);
    for (const [name, value] of Object.entries(attributes)) shape.setAttribute(name, value);
    if (text) shape.textContent = text;
    drawing.append(shape);
  }
  return drawing;
}

/** icon is a sign, drawn with lines in a circle. */
export function icon(name: "spinner" | "check" | "cross" | "clock" | "lock" | "info"): SVGElement {
  const ring: [string, Record<string, string>] = ["circle", { cx: "24", cy: "24", r: "21", class: "ring" }];
  const line = (d: string): [string, Record<string, string>] => ["path", { d, class: "line" }];
  const shapes: Record<string, [string, Record<string, string>][]> = {
    spinner: [ring, ["path", { d: "M24 3a21 21 0 0 1 21 21", class: "arc" }]],
    check: [ring, line("M15 25l6.5 6.5L34 18")],
    cross: [ring, line("M17 17l14 14M31 17L17 31")],
    clock: [ring, line("M24 13v11l7 5")],
    lock: [ring, line("M17 23h14v10H17zM20 23v-3.5a4 4 0 0 1 8 0V23")],
    info: [ring, line("M24 22v11M24 15.5v.01")],
  };
  return svg("icon " + name, "0 0 48 48", ...shapes[name]!);
}

/** brandMark is a small sign for a card network, or for a card of a network that is not known. */
export function brandMark(brand: string): SVGElement {
  const box: [string, Record<string, string>] = ["rect", { x: "0.5", y: "0.5", width: "37", height: "23", rx: "4", class: "box" }];
  const word = (text: string): [string, Record<string, string>, string] => [
    "text",
    { x: "19", y: "15.5", "text-anchor": "middle", class: "word", ...(text.length > 5 ? { textLength: "32" } : {}) },
    text,
  ];
  switch (brand) {
    case "MASTERCARD":
      return svg("mark", "0 0 38 24", box, ["circle", { cx: "15", cy: "12", r: "7", fill: "#eb001b" }], ["circle", { cx: "23", cy: "12", r: "7", fill: "#f79e1b", "fill-opacity": ".85" }]);
    case "":
      return svg("mark none", "0 0 38 24", box, ["path", { d: "M1 8.5h36", class: "stripe" }], ["path", { d: "M5 17h8", class: "stripe thin" }]);
    default:
      return svg("mark " + brand.toLowerCase(), "0 0 38 24", box, word(brand === "UNIONPAY" ? "UnionPay" : brand === "DISCOVER" ? "Discover" : brand === "DINERS" ? "Diners" : brand));
  }
}
