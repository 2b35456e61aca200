// The API over real sockets, with a small model behind it.
//
// Goal: what is refused is refused in the API's words and before it costs anything; what a client
// abandons is given up; streams say what whole answers say. Method: clients are sockets that send
// exactly the bytes of the case.
#include "engine/serve/http_server.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <nlohmann/json.hpp>
#include <thread>

#include "engine/forward/test_models.h"
#include "engine/text/byte_tokenizer.h"
#include "store/device/tls_test_certificates.h"

namespace cairn::engine {
namespace {

using nlohmann::json;

class Client {
 public:
  explicit Client(int port) : socket_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(static_cast<uint16_t>(port));
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    EXPECT_EQ(connect(socket_, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  }
  ~Client() { Leave(); }
  void Leave() {
    if (socket_ >= 0) close(socket_);
    socket_ = -1;
  }
  void Send(const std::string& bytes) const {
    EXPECT_EQ(send(socket_, bytes.data(), bytes.size(), MSG_NOSIGNAL), std::ssize(bytes));
  }
  // Until `end` has come, or the other side closed.
  std::string ReadUntil(const std::string& end) {
    std::string read;
    char byte = 0;
    while (!read.ends_with(end) && recv(socket_, &byte, 1, 0) == 1) read += byte;
    return read;
  }
  struct Answer {
    int status = 0;
    std::string head, body;
    json Json() const { return json::parse(body); }
    bool Says(const std::string& line) const { return head.find(line) != std::string::npos; }
  };
  // One answer with a length; or, without one, all until the other side closes.
  Answer Read() {
    Answer answer;
    answer.head = ReadUntil("\r\n\r\n");
    if (answer.head.size() < 12) return answer;
    answer.status = std::stoi(answer.head.substr(9, 3));
    const size_t length = answer.head.find("Content-Length: ");
    const size_t size =
        length == std::string::npos ? SIZE_MAX : std::stoul(answer.head.substr(length + 16));
    char byte = 0;
    while (answer.body.size() < size && recv(socket_, &byte, 1, 0) == 1) answer.body += byte;
    return answer;
  }
  bool Closed() {
    char byte = 0;
    return recv(socket_, &byte, 1, 0) <= 0;
  }

 private:
  int socket_;
};

std::string Post(const std::string& path, const std::string& body, const std::string& more = "") {
  return "POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + more +
         "Content-Length: " + std::to_string(body.size()) + "\r\n\r\n" + body;
}

std::string Get(const std::string& path) { return "GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n"; }

class Rig {
 public:
  explicit Rig(Scheduler::Options scheduling = {}, HttpServer::Options http = {.port = 0},
               bool run = true)
      : forward_(ModelOf(kModes[0]), 1),
        scheduler(*runner_, tokenizer_, nullptr, nullptr, RealClock(), metrics, scheduling),
        api_(scheduler, tokenizer_, nullptr, metrics, RealClock(), SystemRandom(),
             {.model = {"nano", 64}, .max_positions = 1024}) {
    auto listening = HttpServer::Listen(api_, RealClock(), http);
    EXPECT_TRUE(listening.ok()) << listening.status();
    server = *std::move(listening);
    if (run) loop_ = std::thread([this] { scheduler.Run(); });
  }
  ~Rig() {
    scheduler.Stop();
    if (!loop_.joinable()) loop_ = std::thread([this] { scheduler.Run(); });
    loop_.join();
    server.reset();
  }
  Client::Answer Ask(const std::string& request) const {
    Client client(server->port());
    client.Send(request);
    return client.Read();
  }
  // Returns when the gauge or counter has this value.
  template <typename T>
  void Await(const std::atomic<T>& figure, T value) const {
    while (figure.load() != value) std::this_thread::yield();
  }

  Metrics metrics;

 private:
  ByteTokenizer tokenizer_{64};
  Forward forward_;
  const std::unique_ptr<BatchRunner> runner_ = CpuBatchRunner(forward_);
  std::thread loop_;

 public:
  Scheduler scheduler;

 private:
  Api api_;

 public:
  std::unique_ptr<HttpServer> server;
};

// Prompts of bytes below 64, which is the model's vocabulary.
constexpr char kText[] = R"("model": "nano", "prompt": "1 2 3 4 5", "seed": 4)";
constexpr char kForEver[] = R"({"model": "nano", "prompt": "1", "max_tokens": 1000})";

TEST(HttpServer, StreamsSayWhatWholeAnswersSay) {
  const Rig rig;
  const std::string fields = std::string(kText) + R"(, "max_tokens": 20)";
  const Client::Answer whole = rig.Ask(Post("/v1/completions", "{" + fields + "}"));
  ASSERT_EQ(whole.status, 200) << whole.body;
  EXPECT_TRUE(whole.Says("Content-Type: application/json"));
  const json answer = whole.Json();
  EXPECT_EQ(answer["usage"]["prompt_tokens"], 9);
  EXPECT_EQ(answer["usage"]["completion_tokens"], 20);

  const Client::Answer stream =
      rig.Ask(Post("/v1/completions",
                   "{" + fields + R"(, "stream": true, "stream_options": {"include_usage": true}})",
                   "Connection: close\r\n"));
  ASSERT_EQ(stream.status, 200);
  EXPECT_TRUE(stream.Says("Content-Type: text/event-stream"));
  std::string text;
  json usage;
  size_t at = 0;
  while ((at = stream.body.find("data: {", at)) != std::string::npos) {
    const size_t end = stream.body.find("\n\n", at);
    const json event = json::parse(stream.body.substr(at + 6, end - at - 6));
    if (!event["choices"].empty()) text += event["choices"][0]["text"].get<std::string>();
    usage = event["usage"];
    at = end;
  }
  EXPECT_EQ(text, answer["choices"][0]["text"]);
  EXPECT_EQ(usage, answer["usage"]);
  EXPECT_NE(stream.body.find("data: [DONE]\n\n"), std::string::npos);
}

TEST(HttpServer, RefusesInTheApisWords) {
  const Rig rig({}, {.port = 0, .body_bytes_max = 1000});
  const std::string good = "{" + std::string(kText) + "}";
  const std::string chunked =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n";
  const std::string json_head =
      "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n";
  struct Case {
    std::string request;
    int status;
    bool closes;
  };
  const std::vector<Case> cases = {
      {Get("/v1/nothing"), 404, false},
      {Get("/v1/models/other"), 404, false},
      {Get("/v1/completions"), 405, false},
      {Post("/health", "{}"), 405, false},
      {Post("/v1/completions", "{"), 400, false},
      {Post("/v1/completions", "{}"), 400, false},
      {Post("/v1/completions", R"({"model": "other"})"), 404, false},
      {Post("/v1/completions", R"({"model": "nano", "prompt": "hello"})"), 400, false},
      {Post("/v1/completions", R"({"model": "nano", "prompt": "1", "max_tokens": 5000})"), 400,
       false},
      {Post("/v1/completions", good, "Content-Encoding: gzip\r\n"), 415, true},
      {"POST /v1/completions HTTP/1.1\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\n{}",
       415, true},
      // Refused by the head alone: not a byte of the body is sent.
      {json_head + "Content-Length: 1001\r\n\r\n", 413, true},
      {json_head + "Content-Length: 99999999999999999999999\r\n\r\n", 400, true},
      {json_head + "Content-Length: -1\r\n\r\n", 400, true},
      {json_head + "Content-Length: 1001\r\nExpect: 100-continue\r\n\r\n", 413, true},
      {json_head + "Content-Length: 2\r\nContent-Length: 3\r\n\r\n{}", 400, true},
      {chunked + "Content-Length: 2\r\n\r\n2\r\n{}\r\n0\r\n\r\n", 400, true},
      {json_head + "\r\n", 411, true},
      {chunked + "\r\n400\r\n" + std::string(1024, ' ') + "\r\n0\r\n\r\n", 413, true},
      {"nonsense\r\n\r\n", 400, true},
  };
  for (const Case& each : cases) {
    Client client(rig.server->port());
    client.Send(each.request);
    const Client::Answer answer = client.Read();
    EXPECT_EQ(answer.status, each.status) << each.request;
    const json error = answer.Json()["error"];
    EXPECT_FALSE(error["message"].get<std::string>().empty()) << each.request;
    EXPECT_EQ(error["type"], "invalid_request_error") << each.request;
    EXPECT_TRUE(error.contains("param") && error.contains("code")) << each.request;
    if (each.closes) {
      EXPECT_TRUE(client.Closed()) << each.request;
      continue;
    }
    client.Send(Get("/health"));
    EXPECT_EQ(client.Read().status, 200) << "the connection goes on: " << each.request;
  }
  EXPECT_EQ(rig.metrics.steps, 0u);
}

TEST(HttpServer, KeysAreAskedForBeforeTheBody) {
  HttpServer::Options http{.port = 0};
  http.keys = *ApiKeys::Parse("a-key-of-17-bytes", "keys");
  const Rig rig({}, http);
  const std::string good = "Authorization: Bearer a-key-of-17-bytes\r\n";
  const std::string bad = "Authorization: Bearer a-key-of-17-byteS\r\n";
  const std::string body = "{" + std::string(kText) + "}";
  const std::string get = "GET /v1/models HTTP/1.1\r\nHost: x\r\n";
  // Of a body not a byte is sent.
  const std::string head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n";
  for (const std::string& refused :
       {get + "\r\n", get + bad + "\r\n", get + good + bad + "\r\n", Get("/v1/nothing"),
        head + "\r\n", head + bad + "\r\n", head + "Expect: 100-continue\r\n\r\n"}) {
    Client client(rig.server->port());
    client.Send(refused);
    const Client::Answer answer = client.Read();
    EXPECT_EQ(answer.status, 401) << refused;
    EXPECT_TRUE(answer.Says("WWW-Authenticate: Bearer")) << refused;
    EXPECT_EQ(answer.Json()["error"]["code"], "invalid_api_key") << refused;
    EXPECT_TRUE(client.Closed()) << refused;
  }
  EXPECT_EQ(rig.metrics.steps, 0u);
  EXPECT_EQ(rig.Ask(get + good + "\r\n").status, 200);
  EXPECT_EQ(rig.Ask(Post("/v1/completions", body, good)).status, 200);
  EXPECT_EQ(rig.Ask(Get("/health")).status, 200);
  EXPECT_EQ(rig.Ask(Get("/metrics")).status, 200);
}

// A server under TLS, and clients of it.
class TlsRig : public testing::Test {
 protected:
  static HttpServer::Options Http(const store::TestAuthority& authority) {
    store::TlsCredentials own = authority.Issue("IP:127.0.0.1");
    own.authorities.clear();
    HttpServer::Options http{.port = 0, .connections_max = 2};
    http.tls = *store::TlsOver(own);
    return http;
  }
  absl::StatusOr<std::unique_ptr<store::ByteStream>> Connect() {
    return door_->Connect("127.0.0.1", static_cast<uint16_t>(rig.server->port()), kLong);
  }
  static void Send(store::ByteStream& stream, const std::string& text) {
    const auto* from = reinterpret_cast<const uint8_t*>(text.data());
    EXPECT_EQ(stream.Send({from, text.size()}, kLong).value_or(0), text.size());
  }
  // Until `end` has come that often, or the other side ended.
  static std::string Read(store::ByteStream& stream, const std::string& end, int times = 1) {
    std::string all;
    for (uint8_t byte = 0; times > 0 && stream.Receive({&byte, 1}, kLong).ok();) {
      all += static_cast<char>(byte);
      if (all.ends_with(end)) --times;
    }
    return times == 0 ? all : "ended: " + all;
  }

  static constexpr absl::Duration kLong = absl::Seconds(20);
  static constexpr char kHealthy[] = R"({"status":"ok"})";
  const store::TestAuthority authority_;
  const std::unique_ptr<store::ByteStreamDoor> door_ =
      *store::TlsConnections({.authorities = authority_.certificate()}, "127.0.0.1");

 public:
  const Rig rig{{}, Http(authority_)};
};

TEST_F(TlsRig, AnswersAsInTheClear) {
  auto stream = Connect();
  ASSERT_TRUE(stream.ok()) << stream.status();
  Send(**stream, Get("/health") + Get("/health"));
  EXPECT_TRUE(Read(**stream, kHealthy, 2).starts_with("HTTP/1.1 200"));
  Send(**stream, Post("/v1/completions", "{" + std::string(kText) + R"(, "stream": true})"));
  EXPECT_TRUE(Read(**stream, "data: [DONE]\n\n").starts_with("HTTP/1.1 200"));
}

// While one is computed two records come: of the second one a part is read with the first, and the
// rest is then nowhere but in TLS's memory, where no poll sees it.
TEST_F(TlsRig, ARequestThatTlsHasReadAheadIsSeen) {
  auto stream = Connect();
  ASSERT_TRUE(stream.ok()) << stream.status();
  Send(**stream, Post("/v1/completions", kForEver));
  rig.Await(rig.metrics.requests_running, int64_t{1});
  std::string room = "GET /health HTTP/1.1\r\nHost: x\r\n";  // as much as is read at once
  for (int i = 0; i < 3; ++i) room += "X: " + std::string(5000, 'x') + "\r\n";
  room += "X: " + std::string((16 << 10) - room.size() - 7, 'x') + "\r\n\r\n";
  ASSERT_EQ(room.size(), size_t{16} << 10);
  Send(**stream, room.substr(0, 10'000));
  Send(**stream, room.substr(10'000) + Get("/health"));
  EXPECT_TRUE(Read(**stream, kHealthy, 2).starts_with("HTTP/1.1 200"));
}

TEST_F(TlsRig, WhoGoesAwayOrSpeaksInTheClearIsLeft) {
  auto leaving = Connect();
  ASSERT_TRUE(leaving.ok()) << leaving.status();
  Send(**leaving, Post("/v1/completions", kForEver));
  rig.Await(rig.metrics.requests_running, int64_t{1});
  Client plain(rig.server->port());
  // No place is left: nobody waits for this one's handshake, or answers it in the clear.
  EXPECT_TRUE(absl::IsUnavailable(Connect().status()));
  plain.Send(Get("/health"));
  EXPECT_EQ(plain.ReadUntil("{").find("HTTP"), std::string::npos);
  leaving->reset();
  rig.Await(rig.metrics.requests_cancelled, uint64_t{1});
}

TEST(HttpServer, ChunkedBodiesAndPipelinesAreRead) {
  const Rig rig;
  Client client(rig.server->port());
  const std::string body = "{" + std::string(kText) + "}";
  client.Send(
      "POST /v1/completions HTTP/1.1\r\nContent-Type: application/json\r\n"
      "Transfer-Encoding: chunked\r\n\r\n5\r\n" +
      body.substr(0, 5) + "\r\n" +
      (std::string() + "0123456789abcdef"[(body.size() - 5) / 16] +
       "0123456789abcdef"[(body.size() - 5) % 16]) +
      "\r\n" + body.substr(5) + "\r\n0\r\n\r\n" + Get("/v1/models") + Get("/metrics"));
  EXPECT_EQ(client.Read().status, 200);
  EXPECT_EQ(client.Read().Json()["data"][0]["id"], "nano");
  EXPECT_NE(client.Read().body.find("cairn_engine_answer_tokens_total 16\n"), std::string::npos);
}

TEST(HttpServer, AClientThatGoesAwayEndsItsRequest) {
  const Rig rig({.sequences_max = 1});
  for (const bool stream : {false, true}) {
    const uint64_t before = rig.metrics.requests_cancelled;
    Client client(rig.server->port());
    std::string body = kForEver;
    if (stream) body.insert(1, R"("stream": true, )");
    client.Send(Post("/v1/completions", body));
    if (stream) {
      client.ReadUntil("data: {");
    } else {
      rig.Await(rig.metrics.requests_running, int64_t{1});
    }
    client.Leave();
    rig.Await(rig.metrics.requests_cancelled, before + 1);
    rig.Await(rig.metrics.requests_running, int64_t{0});
    EXPECT_EQ(rig.metrics.kv_bytes_used, 0);
  }
  EXPECT_EQ(rig.Ask(Post("/v1/completions", "{" + std::string(kText) + "}")).status, 200);
}

TEST(HttpServer, AFullQueueIsA429) {
  const Rig rig({.sequences_max = 1, .queue_max = 1}, {.port = 0}, /*run=*/false);
  Client first(rig.server->port());
  Client second(rig.server->port());
  first.Send(Post("/v1/completions", kForEver));
  rig.Await(rig.metrics.requests_waiting, int64_t{1});
  second.Send(Post("/v1/completions", kForEver));
  rig.Await(rig.metrics.requests_waiting, int64_t{2});
  const Client::Answer refused = rig.Ask(Post("/v1/completions", kForEver));
  EXPECT_EQ(refused.status, 429);
  EXPECT_TRUE(refused.Says("Retry-After: 1\r\n")) << refused.head;
  EXPECT_EQ(refused.Json()["error"]["code"], "queue_full");
}

TEST(HttpServer, TooManyConnectionsAreRefusedAtOnce) {
  const Rig rig({}, {.port = 0, .connections_max = 2});
  Client first(rig.server->port());
  Client second(rig.server->port());
  for (Client* client : {&first, &second}) {
    client->Send(Get("/health"));
    EXPECT_EQ(client->Read().status, 200);
  }
  const Client::Answer refused = rig.Ask("");
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Json()["error"]["type"], "server_error");
  first.Send(Get("/health"));
  EXPECT_EQ(first.Read().status, 200) << "those that are served stay so";
}

TEST(HttpServer, DrainingIsSaidAndLeavesNobodyHanging) {
  Rig rig;
  Client streaming(rig.server->port());
  std::string body = kForEver;
  body.insert(1, R"("stream": true, )");
  streaming.Send(Post("/v1/completions", body));
  streaming.ReadUntil("data: {");
  Client idle(rig.server->port());
  idle.Send(Get("/health"));
  EXPECT_EQ(idle.Read().status, 200);
  rig.server->SetDraining();
  EXPECT_EQ(rig.Ask(Get("/health")).status, 503);
  rig.scheduler.Drain(absl::ZeroDuration());
  const Client::Answer refused = rig.Ask(Post("/v1/completions", kForEver));
  EXPECT_EQ(refused.status, 503);
  EXPECT_EQ(refused.Json()["error"]["code"], "shutting_down");
  rig.scheduler.Stop();
  EXPECT_NE(streaming.ReadUntil("\r\n0\r\n\r\n").find("\"code\":\"shutting_down\""),
            std::string::npos);
}

}  // namespace
}  // namespace cairn::engine
