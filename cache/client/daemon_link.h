// daemon_link.h: one connection to a daemon with one session on it. Knows whether the daemon is
// still there, and releases leases behind the callers' backs.
//
// The session is a stream that stays open and silent; when it ends the daemon is gone, and every
// later call is UNAVAILABLE at once. A link never comes back to life: connect anew.
//
// A call that may take longer than call_timeout (a fetch, a commit, a wait) has a far deadline of
// its own, and is bounded by signs of life until then: while one is in flight the daemon is asked
// something small every call_timeout, and an answer that does not come within stall_timeout, or a
// stream that began and then brings nothing for so long, ends the link and every call on it.
//
// Threads:   all methods from any thread. Two threads of its own: one watches the stream, one
//            releases and asks for signs of life.
// Ownership: shared by the cache object and by what it fetched; after Close it is a husk that does
//            nothing.
// Units:     bytes, milliseconds.
// Errors:    UNAVAILABLE, DEADLINE_EXCEEDED, FAILED_PRECONDITION (another version),
//            PERMISSION_DENIED (tenant), RESOURCE_EXHAUSTED (no thread to watch the daemon with).
#ifndef CAIRN_CACHE_CLIENT_DAEMON_LINK_H_
#define CAIRN_CACHE_CLIENT_DAEMON_LINK_H_

#include <grpcpp/grpcpp.h>

#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/time/time.h"
#include "cache/client/answer_check.h"
#include "cairn/v1/cache.grpc.pb.h"
#include "store/device/tls_stream.h"

namespace cairn::cache {

class DaemonLink {
 public:
  struct Options {
    std::string target;  // "unix:/path" or "host:port"
    absl::Duration connect_timeout;
    absl::Duration call_timeout;
    absl::Duration stall_timeout;
    uint64_t answer_bytes_max = 0;
    std::optional<store::TlsCredentials> tls = {};
  };
  static absl::StatusOr<std::shared_ptr<DaemonLink>> Open(const Options& options,
                                                          const NamespaceSpec& spec);
  ~DaemonLink() { Close(); }

  // Ends the session; the daemon frees what it held. Idempotent. Not from two threads at once.
  void Close();

  absl::Status Alive() const;
  // The daemon answered nonsense: it is not asked again. Returns `why`.
  absl::Status Break(absl::Status why);

  const CheckedRegistration& registered() const { return registered_; }
  v1::Cache::Stub& stub() { return *stub_; }
  grpc::ChannelInterface& channel() { return *channel_; }
  // As gRPC names whom the session was opened with: "ipv4:10.0.0.5:7070".
  const std::string& peer() const { return peer_; }

  // One call's context while it is in flight: it ends at its deadline, or with the link.
  class InFlight {
   public:
    InFlight(DaemonLink& link, absl::Duration timeout);
    ~InFlight();
    InFlight(const InFlight&) = delete;
    grpc::ClientContext* context() { return &context_; }
    // A stream's message came; the next one is due within stall_timeout.
    void Progressed();

   private:
    friend class DaemonLink;
    DaemonLink& link_;
    const bool long_;
    grpc::ClientContext context_;
    int64_t progress_nanos_ = 0;  // under the link's mutex; 0: nothing came yet
  };

  // One unary call with a deadline, by the stub's method: Call(&v1::Cache::Stub::Match, ...).
  template <typename Method, typename Request, typename Response>
  absl::Status Call(Method method, const Request& request, Response* response,
                    absl::Duration timeout) {
    CAIRN_RETURN_IF_ERROR(Alive());
    InFlight call(*this, timeout);
    return Ended((stub_.get()->*method)(call.context(), request, response));
  }
  // A call's end in our words; a lost connection is remembered.
  absl::Status Ended(const grpc::Status& status) const;

  // Never blocks.
  void ReleaseLater(uint64_t lease);

 private:
  explicit DaemonLink(const Options& options);
  void WatchSession(v1::SessionRequest request);
  void ReleaseLoop();
  // Waits until there is something to release or to ask, and takes it. False: the link has ended.
  bool AwaitWork(v1::ReleaseRequest& request);
  // All under mutex_.
  void DieLocked(const absl::Status& why);
  bool AwaitsLongLocked() const;
  bool StalledLocked() const;

  const Options options_;
  const std::shared_ptr<grpc::Channel> channel_;
  const std::unique_ptr<v1::Cache::Stub> stub_;
  grpc::ClientContext session_context_;
  CheckedRegistration registered_;  // before Open returns, then constant
  std::string peer_;                // likewise

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  bool first_event_ = false;  // a registration came, or never will
  absl::Status dead_;         // not OK: why
  bool closing_ = false;
  v1::Registration raw_registration_;
  std::string raw_peer_;
  std::vector<uint64_t> to_release_;
  absl::flat_hash_set<InFlight*> calls_;

  std::thread watcher_;
  std::thread releaser_;
};

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_CLIENT_DAEMON_LINK_H_
