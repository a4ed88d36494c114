// A small till in Java 17: create a customer, wait for its number, sell, close the day, follow the events.
//
//     java Till.java http://127.0.0.1:8710 api.token
import java.io.BufferedReader;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.UUID;
import java.util.regex.Pattern;

public class Till {
    private final HttpClient client = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
    private final String url;
    private final String token;
    private final BufferedReader events;

    public static void main(String[] arguments) throws Exception {
        new Till(arguments[0], Files.readString(Path.of(arguments[1])).strip()).sell();
        System.exit(0); // the stream of events has no end
    }

    private Till(String url, String token) throws Exception {
        this.url = url;
        this.token = token;
        // A till that keeps the last id and sends it in Last-Event-ID misses no event.
        InputStream stream = client.send(request("/v1/events").build(), BodyHandlers.ofInputStream()).body();
        events = new BufferedReader(new InputStreamReader(stream, StandardCharsets.UTF_8));
        while (!events.readLine().startsWith("id: ")) { }
    }

    private void sell() throws Exception {
        // The key is made before the call: a repeat after a lost answer is a repeat, not another customer.
        String customer = UUID.randomUUID().toString();
        String ada = "{\"first_name\": \"Ada\", \"last_name\": \"Lovelace\", \"email\": \"ada@example.com\"}";
        post("/v1/customers", ada, "Idempotency-Key", customer);
        System.out.println("numbered " + member("account_number", event("numbered", customer)));

        String lamp = "{\"sku\": \"LAMP\", \"quantity\": 1, \"price\": \"49.90\"}";
        String order = post("/v1/orders", "{\"customer_id\": \"" + customer + "\", \"lines\": [" + lamp + "]}");
        System.out.println("ordered " + member("sales_order", event("posted", member("transaction_id", order))));

        String sale = post("/v1/sales", "{\"lines\": [{\"sku\": \"CUP\", \"quantity\": 2, \"price\": \"4.50\"}]}");
        String day = member("business_date", sale);
        event("posted", member("end_of_day_id", post("/v1/days/" + day + "/close", "")));
        System.out.println("closed " + day);
    }

    private HttpRequest.Builder request(String path) {
        return HttpRequest.newBuilder(URI.create(url + path)).header("Authorization", "Bearer " + token);
    }

    private String post(String path, String body, String... headers) throws Exception {
        HttpRequest.Builder request = request(path).header("Content-Type", "application/json")
                .header("Tenten-Operator", "emma").POST(BodyPublishers.ofString(body));
        if (headers.length > 0) request.headers(headers);
        var answer = client.send(request.build(), BodyHandlers.ofString());
        if (answer.statusCode() >= 300) throw new IllegalStateException(answer.body());
        return answer.body();
    }

    /** Waits for an event of this type with this text; its data. */
    private String event(String type, String text) throws Exception {
        String found = "";
        for (String line; (line = events.readLine()) != null; ) {
            if (line.startsWith("event: ")) found = line.substring(7);
            if (line.startsWith("data: ") && found.equals(type) && line.contains(text)) return line;
        }
        throw new IllegalStateException("the store has ended");
    }

    private static String member(String name, String json) {
        var matcher = Pattern.compile("\"" + name + "\":\"([^\"]*)\"").matcher(json);
        if (!matcher.find()) throw new IllegalStateException("no " + name + " in " + json);
        return matcher.group(1);
    }
}
