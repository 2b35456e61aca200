#include "cache/service/cache_server.h"

#include <grpcpp/resource_quota.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cerrno>
#include <cstring>

#include "cache/client/attach_protocol.h"
#include "cache/client/protocol.h"
#include "cache/service/lookup_server.h"
#include "store/base/thread.h"
#include "store/device/file_descriptor.h"

namespace cairn::cache {
namespace {

constexpr int kServerThreadsMax = 64;
constexpr size_t kServerBytesMax = 512ull << 20;
constexpr int kStreamsPerConnectionMax = 1024;
constexpr absl::Duration kLastBytesMax = absl::Seconds(10);

std::string FileNameOf(const std::string& path) { return path.substr(path.find_last_of('/') + 1); }

// gRPC removes whatever lies at the path before it binds, so it is looked at first: only a socket
// that nobody answers on may go.
absl::Status CheckSocketFree(const std::string& path) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.empty() || path.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(absl::StrCat("socket path '", path, "' must have 1 to ",
                                                   sizeof(address.sun_path) - 1, " bytes"));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  struct stat info {};
  if (::lstat(path.c_str(), &info) != 0) return absl::OkStatus();
  if (!S_ISSOCK(info.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrCat(path, " exists and is not a socket: choose another path"));
  }
  const store::FileDescriptor fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd.valid()) return absl::ResourceExhaustedError("no descriptor for a socket");
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0 ||
      errno != ECONNREFUSED) {
    return absl::FailedPreconditionError(
        absl::StrCat("another process listens on ", path, ": stop it or choose another path"));
  }
  return absl::OkStatus();
}

void Bound(grpc::ServerBuilder& builder, const std::string& name) {
  grpc::ResourceQuota quota(name);
  quota.Resize(kServerBytesMax).SetMaxThreads(kServerThreadsMax);
  builder.SetResourceQuota(quota);
  builder.SetMaxReceiveMessageSize(static_cast<int>(kRequestBytesMax));
  builder.AddChannelArgument(GRPC_ARG_MAX_CONCURRENT_STREAMS, kStreamsPerConnectionMax);
  builder.AddChannelArgument(GRPC_ARG_MAX_METADATA_SIZE, 16 << 10);
  // Two daemons on one port would share its clients by chance.
  builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
  // A half-open client is found dead within 15 s; its session then ends like that of one that hung
  // up.
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIME_MS, 10'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, 5'000);
  builder.AddChannelArgument(GRPC_ARG_KEEPALIVE_PERMIT_WITHOUT_CALLS, 1);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  builder.AddChannelArgument(GRPC_ARG_HTTP2_MIN_RECV_PING_INTERVAL_WITHOUT_DATA_MS, 5'000);
}

std::shared_ptr<grpc::ServerCredentials> CredentialsOf(
    const std::optional<store::TlsCredentials>& tls) {
  if (!tls.has_value()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(
      tls->authorities.empty() ? GRPC_SSL_DONT_REQUEST_CLIENT_CERTIFICATE
                               : GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = tls->authorities;
  options.pem_key_cert_pairs.push_back({tls->key, tls->certificate});
  return grpc::SslServerCredentials(options);
}

absl::Status CannotListen(const std::string& where) {
  return absl::FailedPreconditionError(absl::StrCat(
      "cannot listen on ", where, ": the folder must exist and be writable, the port be free"));
}

}  // namespace

absl::StatusOr<std::unique_ptr<CacheServer>> CacheServer::Start(const CacheServerOptions& options,
                                                                CacheCore& core, Clock& clock,
                                                                Random& random,
                                                                store::SocketDoor& door) {
  std::unique_ptr<CacheServer> server(new CacheServer(options, core, clock, random));
  CAIRN_RETURN_IF_ERROR(server->Listen(options, door));
  return server;
}

CacheServer::CacheServer(const CacheServerOptions& options, CacheCore& core, Clock& clock,
                         Random& random)
    : state_(core, random, options.version, FileNameOf(options.socket) + kAttachSuffix),
      cache_(state_),
      admin_(state_, clock),
      clock_(clock),
      random_(random) {}

absl::Status CacheServer::Listen(const CacheServerOptions& options, store::SocketDoor& door) {
  CAIRN_RETURN_IF_ERROR(CheckSocketFree(options.socket));
  CAIRN_ASSIGN_OR_RETURN(attach_,
                         AttachServer::Start(options.socket + kAttachSuffix, door, state_.core,
                                             state_.sessions, state_.lookups.get()));
  CAIRN_RETURN_IF_ERROR(ListenForBulk(options));
  if (!options.admin_socket.empty()) {
    CAIRN_RETURN_IF_ERROR(CheckSocketFree(options.admin_socket));
    int bound = 0;
    grpc::ServerBuilder builder;
    Bound(builder, "cairn-admin");
    builder.AddListeningPort("unix:" + options.admin_socket, grpc::InsecureServerCredentials(),
                             &bound);
    builder.RegisterService(&admin_);
    admin_server_ = builder.BuildAndStart();
    if (admin_server_ == nullptr || bound == 0) return CannotListen(options.admin_socket);
    ::chmod(options.admin_socket.c_str(), 0600);
  }
  int bound = 0;
  grpc::ServerBuilder builder;
  Bound(builder, "cairn-cache");
  builder.AddListeningPort("unix:" + options.socket, grpc::InsecureServerCredentials(), &bound);
  if (!options.listen.empty()) {
    builder.AddListeningPort(options.listen, CredentialsOf(options.tls), &tcp_port_);
  }
  builder.RegisterService(&cache_);
  cache_server_ = builder.BuildAndStart();
  if (cache_server_ == nullptr || bound == 0) {
    return CannotListen(options.listen.empty() ? options.socket
                                               : options.socket + " or " + options.listen);
  }
  ::chmod(options.socket.c_str(), 0600);
  return absl::OkStatus();
}

absl::Status CacheServer::ListenForBulk(const CacheServerOptions& options) {
  std::unique_ptr<store::ByteStreamDoor> tls;
  // Though there were no bulk port: it says what is wrong with credentials, gRPC does not.
  if (options.tls.has_value()) {
    CAIRN_ASSIGN_OR_RETURN(tls, store::TlsListeners(*options.tls));
  }
  if (options.bulk_listen.empty()) return absl::OkStatus();
  CAIRN_ASSIGN_OR_RETURN(
      state_.bulk_port,
      BulkServer::Start(
          {.listen = options.bulk_listen, .stripe_bytes_min = options.bulk_stripe_bytes_min},
          state_, clock_, random_, tls != nullptr ? *tls : store::TcpStreams()));
  return absl::OkStatus();
}

CacheServer::~CacheServer() { Shutdown(absl::ZeroDuration()); }

void CacheServer::Shutdown(absl::Duration deadline) {
  attach_.reset();
  state_.lookups->Stop();
  admin_.EndVerification();
  const gpr_timespec relative =
      gpr_time_from_millis(absl::ToInt64Milliseconds(deadline), GPR_TIMESPAN);
  if (cache_server_ != nullptr) {
    // Takes no new calls from here on, and returns when all are over: sessions only when told to.
    const auto close = [this, relative] { cache_server_->Shutdown(relative); };
    absl::StatusOr<std::thread> closing = StartThread(close);
    state_.work.AwaitNone(absl::ToChronoMilliseconds(deadline));
    state_.streams.EndAll();
    if (closing.ok()) {
      closing->join();
    } else {
      close();  // calls came in longer
    }
  }
  if (admin_server_ != nullptr) admin_server_->Shutdown(relative);
  for (std::unique_ptr<grpc::Server>* server : {&cache_server_, &admin_server_}) {
    if (*server != nullptr) (*server)->Wait();
    server->reset();
  }
  if (state_.bulk_port != nullptr) state_.bulk_port->Stop();
  // What the transport still reads of the arena is let go by threads of gRPC's; before that the
  // arena must not go.
  if (!state_.work.AwaitNone(absl::ToChronoMilliseconds(kLastBytesMax))) {
    spdlog::error("a stop left bytes of the arena with the transport");
  }
}

}  // namespace cairn::cache
