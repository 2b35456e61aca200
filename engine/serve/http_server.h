// http_server.h: the API over HTTP/1.1, in the clear or under TLS.
//
//   POST /v1/completions, /v1/chat/completions     JSON, or server-sent events
//   GET  /v1/models, /v1/models/NAME, /health, /metrics
//
// Where there are keys, all but /health and /metrics needs one of them, else it is refused before
// its body is read. A body longer than body_bytes_max is refused before it is read, one without a
// length where it gets too long. While a request is computed its connection is watched, and a
// client that goes away ends it. In a stream that has nothing to say for a while there are
// comments, so that nobody between takes it for dead.
//
// Threads:   as many as connections, and one that accepts; all methods from any.
// Ownership: `api` and `clock` outlive this.
// Errors:    every refusal is the API's error object (api_error.h). Listen: UNAVAILABLE.
#ifndef CAIRN_ENGINE_SERVE_HTTP_SERVER_H_
#define CAIRN_ENGINE_SERVE_HTTP_SERVER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/time/time.h"
#include "engine/serve/api.h"
#include "engine/serve/api_keys.h"
#include "store/device/byte_stream.h"

namespace cairn::engine {

class HttpServer {
 public:
  struct Options {
    std::string host = "127.0.0.1";
    int port = 8000;                          // 0: any
    size_t body_bytes_max = size_t{8} << 20;  // a million tokens are about 5 MB of text
    int connections_max = 128;
    absl::Duration request_deadline = absl::Seconds(30);  // for a request to arrive
    absl::Duration idle = absl::Seconds(60);              // between two requests
    absl::Duration comment_every = absl::Seconds(10);     // in a silent stream
    store::StreamOver tls = nullptr;                      // null: in the clear
    ApiKeys keys = {};                                    // none: nobody is asked for one
  };
  // Serves when it returns.
  static absl::StatusOr<std::unique_ptr<HttpServer>> Listen(Api& api, Clock& clock,
                                                            const Options& options);
  // Ends accepting and idle connections at once, then waits for the answers that are being made:
  // the scheduler must have been stopped, or be about to finish them.
  virtual ~HttpServer() = default;

  virtual int port() const = 0;
  // /health says so from now on, so that no more is sent here.
  virtual void SetDraining() = 0;
};

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_SERVE_HTTP_SERVER_H_
