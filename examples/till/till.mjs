// A small till in JavaScript: create a customer, wait for its number, sell, close the day, follow the events.
//
//     node till.mjs http://127.0.0.1:8710 api.token
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";

const [url, tokenFile] = process.argv.slice(2);
const headers = { Authorization: `Bearer ${readFileSync(tokenFile, "ascii").trim()}`, "Tenten-Operator": "emma" };

async function call(method, path, body, more = {}) {
  const answer = await fetch(url + path, {
    method,
    headers: { ...headers, "Content-Type": "application/json", ...more },
    body: body && JSON.stringify(body),
  });
  const document = await answer.json();
  if (!answer.ok) throw new Error(`${document.detail} ${JSON.stringify(document.errors ?? [])}`);
  return document;
}

// A till that keeps the last id and sends it in Last-Event-ID misses no event.
const stop = new AbortController();
const stream = await fetch(`${url}/v1/events`, { headers, signal: stop.signal });
const chunks = stream.body.pipeThrough(new TextDecoderStream())[Symbol.asyncIterator]();
let text = "";

async function next() {
  for (;;) {
    const end = text.indexOf("\n\n");
    if (end >= 0) {
      const fields = Object.fromEntries(text.slice(0, end).split("\n").map((line) => line.split(/: (.*)/s, 2)));
      text = text.slice(end + 2);
      return fields;
    }
    text += (await chunks.next()).value;
  }
}

async function event(type, matches) {
  for (;;) {
    const sent = await next();
    const data = sent.data && JSON.parse(sent.data);
    if (sent.event === type && matches(data)) return data;
  }
}

while (!(await next()).id);

// The key is made before the call: a repeat after a lost answer is a repeat, not another customer.
const customer = randomUUID();
const ada = { first_name: "Ada", last_name: "Lovelace", email: "ada@example.com" };
await call("POST", "/v1/customers", ada, { "Idempotency-Key": customer });
console.log("numbered", (await event("numbered", (data) => data.customer_id === customer)).account_number);

const lamp = { sku: "LAMP", quantity: 1, price: "49.90" };
const order = await call("POST", "/v1/orders", { customer_id: customer, lines: [lamp] });
console.log("ordered", (await event("posted", (data) => data.transaction_id === order.transaction_id)).sales_order);

const sale = await call("POST", "/v1/sales", { lines: [{ sku: "CUP", quantity: 2, price: "4.50" }] });
const day = await call("POST", `/v1/days/${sale.business_date}/close`);
await event("posted", (data) => data.end_of_day_id === day.ends_of_day[0].end_of_day_id);
console.log("closed", sale.business_date);
stop.abort();
