// The form of an order or a sale: Enter goes from field to field, and the total is shown before it is recorded.
"use strict";

// A scanner sends Enter after each article: it is not the end of the form. In an empty line it leads to the button.
function rows(form) {
  const fields = [...form.querySelectorAll(".line input")];
  const lines = [...form.querySelectorAll(".line")].map((line) => [...line.querySelectorAll("input")]);
  const { decimal, total: currency } = form.dataset;
  const inCurrency = new Intl.NumberFormat(document.documentElement.lang, { style: "currency", currency, currencyDisplay: "code" });
  const digits = inCurrency.resolvedOptions().maximumFractionDigits;
  const groups = decimal === "," ? /[.\s](?=\d{3}(\D|$))/g : /,(?=\d{3}(\D|$))/g;
  const entered = (text) => Number(text.trim().replace(groups, "").replace(decimal, "."));
  function show() {
    const amounts = lines.map(([, quantity, price]) => Number((entered(quantity.value || "1") * entered(price.value)).toFixed(digits)));
    const total = amounts.reduce((sum, amount) => sum + (amount || 0), 0);
    const parts = inCurrency.formatToParts(total).filter((part) => !["currency", "literal"].includes(part.type));
    form.querySelector("output").textContent = `${parts.map((part) => part.value).join("")}\u00a0${currency}`;
  }
  form.addEventListener("input", show);
  form.addEventListener("keydown", (event) => {
    const at = fields.indexOf(event.target);
    if (event.key !== "Enter" || (at < 0 && event.target.name !== "customer")) return;
    event.preventDefault();
    if (at % 3 === 0 && !event.target.value.trim() && at > 0) form.querySelector(".form-end button").focus();
    else if (at + 1 < fields.length) fields[at + 1].focus();
    else form.querySelector("[name=more]").click();
  });
  show();
}

document.querySelectorAll("form[data-total]").forEach(rows);
