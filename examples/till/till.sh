#!/bin/sh
# A small till in shell: create a customer, wait for its number, sell, close the day, follow the events.
#
#     sh till.sh http://127.0.0.1:8710 api.token
set -eu
url=$1 token=$(cat "$2")
events=$(mktemp)

call() { # METHOD PATH [BODY] [HEADER]
    curl --silent --show-error --fail-with-body --request "$1" "$url$2" --header "Authorization: Bearer $token" \
        --header 'Content-Type: application/json' --header "${4:-Tenten-Operator: emma}" --data "${3:-}"
}
member() { # NAME: the text of this member of a JSON document
    sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p" | head -n 1
}
event() { # TYPE TEXT: wait for an event of this type with this text; print its data
    while ! grep -A 1 "^event: $1$" "$events" | grep "$2"; do sleep 0.1; done
}

# Follow the events from now on. A till that keeps the last id and sends it in Last-Event-ID misses none.
curl --silent --no-buffer "$url/v1/events" --header "Authorization: Bearer $token" > "$events" &
follower=$!
trap 'kill $follower; rm "$events"' EXIT
until grep -q '^id: ' "$events"; do sleep 0.1; done

# The key is made before the call: a repeat after a lost answer is a repeat, not another customer.
customer=$({ cat /proc/sys/kernel/random/uuid 2> /dev/null || uuidgen; } | tr A-F a-f)
call POST /v1/customers '{"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com"}' \
    "Idempotency-Key: $customer" > /dev/null
echo "numbered $(event numbered "$customer" | member account_number)"

order=$(call POST /v1/orders "{\"customer_id\": \"$customer\", \"lines\": [{\"sku\": \"LAMP\", \"quantity\": 1, \"price\": \"49.90\"}]}" |
    member transaction_id)
echo "ordered $(event posted "$order" | member sales_order)"

day=$(call POST /v1/sales '{"lines": [{"sku": "CUP", "quantity": 2, "price": "4.50"}]}' | member business_date)
end=$(call POST "/v1/days/$day/close" | member end_of_day_id)
event posted "$end" > /dev/null
echo "closed $day"
