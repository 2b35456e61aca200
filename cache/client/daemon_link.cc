#include "cache/client/daemon_link.h"

#include <algorithm>
#include <chrono>

#include "cache/client/protocol.h"
#include "store/base/clock.h"
#include "store/base/thread.h"

namespace cairn::cache {
namespace {

constexpr int kReleaseTriesMax = 3;

grpc::ChannelArguments ChannelArgs(uint64_t answer_bytes_max) {
  grpc::ChannelArguments args;
  args.SetMaxReceiveMessageSize(static_cast<int>(answer_bytes_max));
  // Each session has a connection of its own: two that shared one would share its fate and its
  // window.
  args.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  // A retried Reserve or Commit is not the same request, and retries would outlive our deadlines.
  args.SetInt(GRPC_ARG_ENABLE_RETRIES, 0);
  args.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  // A half-open connection is found dead after 15 s even when no call is made.
  args.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  args.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  args.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  return args;
}

std::shared_ptr<grpc::ChannelCredentials> CredentialsOf(
    const std::optional<store::TlsCredentials>& tls) {
  if (!tls.has_value()) return grpc::InsecureChannelCredentials();
  return grpc::SslCredentials({.pem_root_certs = tls->authorities,
                               .pem_private_key = tls->key,
                               .pem_cert_chain = tls->certificate});
}

}  // namespace

DaemonLink::DaemonLink(const Options& options)
    : options_(options),
      channel_(grpc::CreateCustomChannel(options.target, CredentialsOf(options.tls),
                                         ChannelArgs(options.answer_bytes_max))),
      stub_(v1::Cache::NewStub(channel_)) {}

absl::StatusOr<std::shared_ptr<DaemonLink>> DaemonLink::Open(const Options& options,
                                                             const NamespaceSpec& spec) {
  std::shared_ptr<DaemonLink> link(new DaemonLink(options));
  v1::SessionRequest request;
  request.set_protocol_version(kProtocolVersion);
  request.set_tenant(spec.tenant);
  EncodeLayout(spec.layout, request.mutable_layout());
  DaemonLink* raw = link.get();
  CAIRN_ASSIGN_OR_RETURN(link->watcher_,
                         StartThread([raw, request] { raw->WatchSession(request); }));

  v1::Registration registration;
  {
    std::unique_lock<std::mutex> lock(link->mutex_);
    const bool came =
        link->changed_.wait_for(lock, absl::ToChronoMilliseconds(options.connect_timeout),
                                [&] { return link->first_event_; });
    if (!came) {
      return absl::DeadlineExceededError(
          absl::StrCat("the cache daemon at ", options.target, " did not answer within ",
                       absl::FormatDuration(options.connect_timeout)));
    }
    if (!link->dead_.ok()) {
      return absl::Status(link->dead_.code(),
                          absl::StrCat("cannot open a session with the cache daemon at ",
                                       options.target, ": ", std::string(link->dead_.message())));
    }
    registration = link->raw_registration_;
    link->peer_ = link->raw_peer_;
  }
  CAIRN_ASSIGN_OR_RETURN(link->registered_, CheckRegistration(registration));
  CAIRN_ASSIGN_OR_RETURN(link->releaser_, StartThread([raw] { raw->ReleaseLoop(); }));
  return link;
}

void DaemonLink::WatchSession(v1::SessionRequest request) {
  std::unique_ptr<grpc::ClientReader<v1::SessionEvent>> reader =
      stub_->Session(&session_context_, request);
  v1::SessionEvent event;
  bool registered = false;
  while (reader->Read(&event)) {
    // Later kinds of events are ignorable by rule.
    if (registered || !event.has_registration()) continue;
    registered = true;
    std::lock_guard<std::mutex> lock(mutex_);
    raw_registration_ = event.registration();
    raw_peer_ = session_context_.peer();
    first_event_ = true;
    changed_.notify_all();
  }
  absl::Status status = FromGrpc(reader->Finish());
  if (registered) {
    status = absl::UnavailableError(absl::StrCat(
        "the cache daemon at ", options_.target,
        " has gone: ", status.ok() ? "it ended the session" : std::string(status.message())));
  } else if (status.ok()) {
    status = absl::UnavailableError("it ended the session before it began");
  }
  std::lock_guard<std::mutex> lock(mutex_);
  first_event_ = true;
  DieLocked(status);
}

void DaemonLink::DieLocked(const absl::Status& why) {
  if (dead_.ok()) dead_ = why;
  for (InFlight* const call : calls_) call->context_.TryCancel();
  changed_.notify_all();
}

void DaemonLink::Close() {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    closing_ = true;
    DieLocked(absl::UnavailableError("the session is closed"));
  }
  session_context_.TryCancel();
  if (watcher_.joinable()) watcher_.join();
  if (releaser_.joinable()) releaser_.join();
}

absl::Status DaemonLink::Alive() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return dead_;
}

absl::Status DaemonLink::Break(absl::Status why) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    DieLocked(why);
  }
  session_context_.TryCancel();
  return why;
}

DaemonLink::InFlight::InFlight(DaemonLink& link, absl::Duration timeout)
    : link_(link), long_(timeout > link.options_.call_timeout) {
  const int64_t millis =
      std::clamp<int64_t>(absl::ToInt64Milliseconds(timeout), 1, kFetchMillisMax);
  // Relative: a jump of the wall clock moves no deadline.
  context_.set_deadline(gpr_time_from_millis(millis, GPR_TIMESPAN));
  std::lock_guard<std::mutex> lock(link_.mutex_);
  link_.calls_.insert(this);
  if (!link_.dead_.ok()) context_.TryCancel();
  if (long_) link_.changed_.notify_all();
}

DaemonLink::InFlight::~InFlight() {
  std::lock_guard<std::mutex> lock(link_.mutex_);
  link_.calls_.erase(this);
}

void DaemonLink::InFlight::Progressed() {
  std::lock_guard<std::mutex> lock(link_.mutex_);
  progress_nanos_ = RealClock().NowNanos();
}

absl::Status DaemonLink::Ended(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  // If the session died under the call, its reason says more than the call's.
  if (absl::Status alive = Alive(); !alive.ok()) return alive;
  return FromGrpc(status);
}

void DaemonLink::ReleaseLater(uint64_t lease) {
  std::lock_guard<std::mutex> lock(mutex_);
  if (!dead_.ok()) return;  // the daemon has freed it with the session
  to_release_.push_back(lease);
  changed_.notify_all();
}

bool DaemonLink::AwaitsLongLocked() const {
  return std::any_of(calls_.begin(), calls_.end(),
                     [](const InFlight* call) { return call->long_; });
}

bool DaemonLink::StalledLocked() const {
  const int64_t since = RealClock().NowNanos() - absl::ToInt64Nanoseconds(options_.stall_timeout);
  return std::any_of(calls_.begin(), calls_.end(), [since](const InFlight* call) {
    return call->progress_nanos_ != 0 && call->progress_nanos_ < since;
  });
}

bool DaemonLink::AwaitWork(v1::ReleaseRequest& request) {
  std::unique_lock<std::mutex> lock(mutex_);
  const auto ended = [&] { return closing_ || !dead_.ok(); };
  const auto due = [&] { return ended() || !to_release_.empty(); };
  changed_.wait(lock, [&] { return due() || AwaitsLongLocked(); });
  changed_.wait_for(lock, absl::ToChronoMilliseconds(options_.call_timeout), due);
  if (ended()) return false;
  if (StalledLocked()) {
    lock.unlock();
    Break(absl::DeadlineExceededError(absl::StrCat("the cache daemon at ", options_.target,
                                                   " stopped in the middle of an answer")))
        .IgnoreError();
    return false;
  }
  const size_t count = std::min<size_t>(to_release_.size(), kLeasesPerSessionMax);
  const auto end = to_release_.begin() + static_cast<std::ptrdiff_t>(count);
  request.mutable_leases()->Add(to_release_.begin(), end);
  to_release_.erase(to_release_.begin(), end);
  return true;
}

void DaemonLink::ReleaseLoop() {
  int tries = 0;
  while (true) {
    v1::ReleaseRequest request;
    if (!AwaitWork(request)) return;
    request.set_token(registered_.token);
    v1::ReleaseResponse response;
    // Of no leases it only asks whether the daemon lives.
    const absl::Status status =
        Call(&v1::Cache::Stub::Release, request, &response, options_.stall_timeout);
    std::unique_lock<std::mutex> lock(mutex_);
    const bool late = absl::IsDeadlineExceeded(status);
    if (late && dead_.ok() && AwaitsLongLocked()) {
      lock.unlock();
      Break(absl::DeadlineExceededError(absl::StrCat("the cache daemon at ", options_.target,
                                                     " gave no sign of life for ",
                                                     absl::FormatDuration(options_.stall_timeout))))
          .IgnoreError();
      return;
    }
    // Given up after a few tries: leases also end at the daemon's deadline for them.
    if (!(late || absl::IsResourceExhausted(status)) || ++tries >= kReleaseTriesMax) {
      tries = 0;
      continue;
    }
    to_release_.insert(to_release_.end(), request.leases().begin(), request.leases().end());
  }
}

}  // namespace cairn::cache
