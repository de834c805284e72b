// What can be said of a page's accessibility without a person: names, labels, references,
// structure, targets and contrast. Returns what is wrong, as texts.
(() => {
  const wrong = [];
  const where = (e) => e.tagName.toLowerCase() + (e.id ? "#" + e.id : "") + (e.className && typeof e.className === "string" ? "." + e.className.split(" ").join(".") : "");
  const seen = (e) => e.checkVisibility({ opacityProperty: true, visibilityProperty: true }) && e.getClientRects().length > 0;
  const complain = (e, what) => wrong.push(where(e) + ": " + what);
  const all = (selector) => [...document.querySelectorAll(selector)];

  if (!/^(en|es|pt)$/.test(document.documentElement.lang)) complain(document.documentElement, "has no language");
  if (!document.title.trim()) complain(document.head, "has no title");
  if (all("main").length !== 1) complain(document.body, "has not one main");
  if (!all("h1, h2").some(seen)) complain(document.body, "has no heading");
  const ids = all("[id]").map((e) => e.id);
  for (const id of new Set(ids)) if (ids.filter((i) => i === id).length > 1) wrong.push("the id " + id + " is there twice");
  for (const e of all("[aria-describedby], [aria-labelledby], label[for]")) {
    for (const attribute of ["aria-describedby", "aria-labelledby", "for"]) {
      for (const id of (e.getAttribute(attribute) ?? "").split(" ").filter(Boolean)) {
        if (!document.getElementById(id)) complain(e, attribute + " names nothing: " + id);
      }
    }
  }
  for (const e of all("input:not([type=hidden]), select, textarea")) {
    if (seen(e) && ![...(e.labels ?? [])].some((l) => l.textContent.trim())) complain(e, "has no label");
    if (e.getAttribute("aria-invalid") === "true" && !document.getElementById(e.getAttribute("aria-describedby"))?.textContent.trim()) complain(e, "is wrong and does not say why");
  }
  for (const e of all("button, a[href], iframe")) {
    if (!seen(e)) continue;
    if (!(e.textContent.trim() || e.getAttribute("aria-label") || e.title || e.querySelector("img[alt]:not([alt=''])"))) complain(e, "has no name");
  }
  for (const e of all("img")) if (!e.hasAttribute("alt")) complain(e, "has no alt");
  // A picture is hidden, or an image with a name, or a group with a name, of links that have names.
  for (const e of all("svg")) if (seen(e) && !e.closest("[aria-hidden=true], [role=img], [role=group][aria-label]")) complain(e, "is neither hidden nor an image");
  for (const e of all("[tabindex]")) if (e.tabIndex > 0) complain(e, "has a place of its own in the tab order");
  for (const e of all("button, input:not([type=hidden]):not([type=radio])")) {
    const r = e.getBoundingClientRect();
    if (seen(e) && (r.height < 24 || r.width < 24)) complain(e, "is too small a target");
  }
  if (document.documentElement.scrollWidth > innerWidth) complain(document.documentElement, "scrolls sideways: " + document.documentElement.scrollWidth + " in " + innerWidth);

  // Contrast, of each text that is seen, against the first background that is not clear.
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const rgba = (colour) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  const luminance = ([r, g, b]) => {
    const [x, y, z] = [r, g, b].map((v) => ((v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * x + 0.7152 * y + 0.0722 * z;
  };
  const behind = (e) => {
    for (; e; e = e.parentElement) {
      const style = getComputedStyle(e);
      if (style.backgroundImage !== "none") return null;
      const c = rgba(style.backgroundColor);
      if (c[3] === 255) return c;
    }
    return null;
  };
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const looked = new Set();
  for (let n = walker.nextNode(); n; n = walker.nextNode()) {
    const e = n.parentElement;
    if (!n.textContent.trim() || looked.has(e) || !seen(e) || e.closest("noscript, script, style, svg, .unseen, [aria-hidden=true]")) continue;
    looked.add(e);
    const back = behind(e);
    if (!back) continue;
    const style = getComputedStyle(e);
    const [hi, lo] = [luminance(rgba(style.color)), luminance(back)].sort((a, b) => b - a);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && Number(style.fontWeight) >= 700);
    const ratio = (hi + 0.05) / (lo + 0.05);
    if (ratio < (large ? 3 : 4.5)) complain(e, "has a contrast of " + ratio.toFixed(2));
  }
  return wrong;
})()
