#include "engine/serve/http_server.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <charconv>
#include <thread>
#include <utility>

#include "engine/serve/api_error.h"
#include "engine/serve/http_connection.h"

namespace cairn::engine {
namespace {

using httplib::Request;
using httplib::Response;

constexpr size_t kHeadBytesMax = 64 << 10;
constexpr absl::Duration kLinger = absl::Seconds(1);
constexpr absl::Duration kForEver = absl::InfiniteDuration();
constexpr char kJson[] = "application/json";
constexpr std::string_view kGets[] = {"/v1/models", "/health", "/metrics"};
constexpr std::string_view kOpen[] = {"/health", "/metrics"};  // without a key
constexpr std::string_view kPosts[] = {"/v1/completions", "/v1/chat/completions"};

// The connection that this thread serves, and why its request is refused before its body is read.
thread_local HttpConnection* t_connection = nullptr;
thread_local int t_refusal = 0;

void SetError(const ApiError& error, Response& response) {
  response.status = error.http_status;
  response.set_content(ErrorBody(error), kJson);
}

std::string RefusalText(int status, size_t body_bytes_max) {
  switch (status) {
    case 401:
      return "this needs a valid key: Authorization: Bearer KEY";
    case 405:
      return "this path has another method";
    case 411:
      return "the body needs a length";
    case 413:
      return absl::StrCat("the body is longer than ", body_bytes_max, " bytes");
    case 415:
      return "the body must be application/json, not encoded";
    case 503:
      return "too many connections";
    default:
      return status == 404 ? "there is nothing at this path" : "not a good HTTP request";
  }
}

template <size_t N>
bool Among(const std::string_view (&paths)[N], const std::string& path) {
  return std::find(std::begin(paths), std::end(paths), path) != std::end(paths);
}

// A thread a connection; where there are none left, the accepting thread itself says so.
class Connections final : public httplib::TaskQueue {
 public:
  Connections(int count, std::function<void()> before_refusal)
      : count_(count), pool_(static_cast<size_t>(count)), refuse_(std::move(before_refusal)) {}
  void enqueue(std::function<void()> serve) override {
    if (open_.fetch_add(1) >= count_) {
      refuse_();
      serve();
      --open_;
      return;
    }
    pool_.enqueue([this, serve = std::move(serve)] {
      serve();
      --open_;
    });
  }
  void shutdown() override { pool_.shutdown(); }

 private:
  const int count_;
  std::atomic<int> open_{0};
  httplib::ThreadPool pool_;
  const std::function<void()> refuse_;
};

class Server final : public HttpServer, private httplib::Server {
 public:
  Server(Api& api, Clock& clock, const HttpServer::Options& options)
      : api_(api), clock_(clock), options_(options), stop_fd_(eventfd(0, EFD_CLOEXEC)) {
    new_task_queue = [this] {
      return new Connections(options_.connections_max, [] { t_refusal = 503; });
    };
    set_tcp_nodelay(true);
    set_keep_alive_timeout(absl::ToInt64Seconds(options_.idle));  // only said; the loop is ours
    set_pre_routing_handler(
        [this](const Request& request, Response& response) { return Refuse(request, response); });
    set_expect_100_continue_handler([this](const Request&, Response& response) {
      if (t_refusal != 0) SetRefusal(response);
      return t_refusal == 0 ? 100 : t_refusal;
    });
    set_error_handler(Handler(
        [this](const Request& request, Response& response) { ExplainStatus(request, response); }));
    set_logger([this](const Request& request, const Response& response) {
      const bool known = Among(kGets, request.path) || Among(kPosts, request.path);
      api_.metrics().CountAnswer(known ? request.path : "other", response.status);
    });
    Route();
  }

  ~Server() override {
    draining_ = true;
    eventfd_write(stop_fd_, 1);
    httplib::Server::stop();
    if (accepting_.joinable()) accepting_.join();
    close(stop_fd_);
  }

  absl::Status Start() {
    if (options_.port == 0) {
      port_ = bind_to_any_port(options_.host);
    } else if (bind_to_port(options_.host, options_.port)) {
      port_ = options_.port;
    }
    if (port_ <= 0) {
      return absl::UnavailableError(
          absl::StrCat("cannot listen on ", options_.host, ":", options_.port, "; is it in use?"));
    }
    accepting_ = std::thread([this] { listen_after_bind(); });
    while (!is_running()) std::this_thread::yield();  // or stop() would not be heard
    return absl::OkStatus();
  }

  int port() const override { return port_; }
  void SetDraining() override { draining_ = true; }

 private:
  void Route() {
    Get("/health", [this](const Request&, Response& response) {
      if (draining_) return SetError(ErrorOf(absl::UnavailableError("shutting down")), response);
      response.set_content("{\"status\":\"ok\"}", kJson);
    });
    Get("/metrics", [this](const Request&, Response& response) {
      response.set_content(api_.MetricsText(), "text/plain; version=0.0.4");
    });
    Get("/v1/models",
        [this](const Request&, Response& response) { response.set_content(api_.Models(), kJson); });
    Get("/v1/models/(.{1,256})", [this](const Request& request, Response& response) {
      const absl::StatusOr<std::string> model = api_.DescribeModel(request.matches[1]);
      if (!model.ok()) return SetError(ErrorOf(model.status()), response);
      response.set_content(*model, kJson);
    });
    Post("/v1/completions", [this](const Request& request, Response& response) {
      Answer(api_.Complete(request.body), response);
    });
    Post("/v1/chat/completions", [this](const Request& request, Response& response) {
      Answer(api_.Chat(request.body), response);
    });
  }

  // ---- one connection ----

  bool process_and_close_socket(socket_t socket) override {
    const bool tls = options_.tls != nullptr;
    absl::StatusOr<std::unique_ptr<store::ByteStream>> stream =
        (tls ? options_.tls : store::TcpOver())(store::FileDescriptor(socket));
    if (!stream.ok()) return false;
    HttpConnection connection(socket, *std::move(stream), clock_);
    if (std::exchange(t_refusal, 0) != 0) {  // on the accepting thread, which must not wait
      if (tls) {                             // not for a handshake, either
        connection.Close(absl::ZeroDuration());
        return true;
      }
      const std::string body = ErrorBody(ErrorOf(503, RefusalText(503, 0)));
      const std::string answer =
          absl::StrCat("HTTP/1.1 503 Service Unavailable\r\nContent-Type: ", kJson,
                       "\r\nRetry-After: 1\r\nConnection: close\r\nContent-Length: ", body.size(),
                       "\r\n\r\n", body);
      connection.write(answer.data(), answer.size());
      connection.Close(absl::ZeroDuration());
      return true;
    }
    t_connection = &connection;
    bool closed = false;
    while (!closed && connection.AwaitRequest(options_.idle, stop_fd_)) {
      connection.Allow(kHeadBytesMax, options_.request_deadline);
      const bool served = process_request(
          connection, /*close_connection=*/draining_ || t_refusal != 0, closed,
          [this, &connection](Request& request) { SetBounds(request, connection); });
      closed = closed || !served || draining_ || t_refusal != 0 || connection.over_limit();
    }
    connection.Close(kLinger);
    t_connection = nullptr;
    t_refusal = 0;
    return true;
  }

  // The head is read, the body is not.
  void SetBounds(Request& request, HttpConnection& connection) {
    request.headers.erase("Accept-Encoding");  // streams and short texts gain nothing by it
    size_t length = 0;
    bool known = !request.has_header("Transfer-Encoding");
    if (request.has_header("Content-Length")) {
      const std::string text = request.get_header_value("Content-Length");
      const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), length);
      const bool number = error == std::errc() && end == text.data() + text.size();
      // Two lengths, or one and none: whoever stands between might believe the other.
      if (!number || !known || request.get_header_value_count("Content-Length") > 1) {
        t_refusal = 400;
      }
    }
    if (t_refusal == 0 && !LetIn(request)) t_refusal = 401;
    if (t_refusal == 0 && request.method == "POST" && known &&
        !request.has_header("Content-Length")) {
      t_refusal = 411;
    }
    const std::string type = request.get_header_value("Content-Type");
    if (t_refusal == 0 && length > options_.body_bytes_max) t_refusal = 413;
    if (t_refusal == 0 && request.method == "POST" && Among(kPosts, request.path) &&
        (!type.starts_with(kJson) || request.has_header("Content-Encoding"))) {
      t_refusal = 415;
    }
    if (t_refusal != 0) {
      request.headers.erase("Connection");
      request.set_header("Connection", "close");
    }
    // Of a body in chunks the frames count, too.
    connection.Allow(known ? length : options_.body_bytes_max, options_.request_deadline);
  }

  bool LetIn(const Request& request) const {
    return Among(kOpen, request.path) ||
           (request.get_header_value_count("Authorization") <= 1 &&
            options_.keys.LetIn(request.get_header_value("Authorization")));
  }

  HandlerResponse Refuse(const Request&, Response& response) {
    if (t_refusal == 0) return HandlerResponse::Unhandled;
    SetRefusal(response);
    return HandlerResponse::Handled;
  }

  void SetRefusal(Response& response) const {
    if (t_refusal == 401) response.set_header("WWW-Authenticate", "Bearer");
    SetError(ErrorOf(t_refusal, RefusalText(t_refusal, options_.body_bytes_max)), response);
  }

  // What the library refused by itself gets a body like all others. Where it lost its place in what
  // the client sends, the connection ends.
  void ExplainStatus(const Request& request, Response& response) const {
    if (!response.body.empty()) return;
    int status = response.status;
    if (t_connection != nullptr && t_connection->over_limit()) status = 413;
    if (status == 404 && (Among(kGets, request.path) || Among(kPosts, request.path))) status = 405;
    if (status != 404 && status != 405) t_refusal = status;
    SetError(ErrorOf(status, RefusalText(status, options_.body_bytes_max)), response);
  }

  // ---- one answer ----

  void Answer(absl::StatusOr<Api::Call> started, Response& response) {
    if (!started.ok()) {
      if (absl::IsResourceExhausted(started.status())) {
        response.set_header("Retry-After", std::to_string(api_.RetryAfterSeconds()));
      }
      return SetError(ErrorOf(started.status()), response);
    }
    const auto call = std::make_shared<Api::Call>(*std::move(started));
    if (!call->stream) return AnswerWhole(*call, response);
    response.set_header("Cache-Control", "no-cache");
    response.set_chunked_content_provider(
        "text/event-stream",
        [this, call](size_t, httplib::DataSink& sink) {
          const bool sent = Stream(*call, sink);
          if (sent) sink.done();
          return sent;
        },
        [call](bool sent) {
          if (!sent) call->generation->Cancel();
        });
  }

  void AnswerWhole(Api::Call& call, Response& response) {
    for (;;) {
      if (t_connection->Await(call.generation->ready_fd(), kForEver) !=
          HttpConnection::Event::kReady) {
        call.generation->Cancel();
        return SetError(ErrorOf(499, "the client went away"), response);
      }
      const std::optional<Output> output = call.generation->Take();
      if (!output.has_value()) continue;
      if (!output->status.ok()) return SetError(ErrorOf(output->status), response);
      call.answer->Add(*output);
      if (!output->finish.has_value()) continue;
      response.set_content(call.answer->Whole(), kJson);
      return;
    }
  }

  // False: the client went away.
  bool Stream(Api::Call& call, httplib::DataSink& sink) {
    const auto send = [&](const std::string& text) { return sink.write(text.data(), text.size()); };
    for (;;) {
      const HttpConnection::Event event =
          t_connection->Await(call.generation->ready_fd(), options_.comment_every);
      if (event == HttpConnection::Event::kGone) return false;
      if (event == HttpConnection::Event::kTimeout) {
        if (!send(": still at it\n\n")) return false;
        continue;
      }
      const std::optional<Output> output = call.generation->Take();
      if (!output.has_value()) continue;
      if (!output->status.ok()) {
        return send(absl::StrCat("data: ", ErrorBody(ErrorOf(output->status)), "\n\n"));
      }
      for (const std::string& each : call.answer->Add(*output)) {
        if (!send(absl::StrCat("data: ", each, "\n\n"))) return false;
      }
      if (output->finish.has_value()) return send("data: [DONE]\n\n");
    }
  }

  Api& api_;
  Clock& clock_;
  const HttpServer::Options options_;
  const int stop_fd_;
  int port_ = 0;
  std::atomic<bool> draining_{false};
  std::thread accepting_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Listen(Api& api, Clock& clock,
                                                               const Options& options) {
  auto server = std::make_unique<Server>(api, clock, options);
  CAIRN_RETURN_IF_ERROR(server->Start());
  return server;
}

}  // namespace cairn::engine
