#include "tools/cairn-bench/wire_server.h"

#include <grpc/slice.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/grpcpp.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>
#include <vector>

#include "cache/core/cache_core.h"
#include "cache/service/cache_server.h"
#include "store/base/limits.h"
#include "store/device/byte_stream.h"
#include "tools/cairn-bench/flash_layout.h"

namespace cairn::bench {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

std::vector<uint8_t>& Payload() {
  static std::vector<uint8_t> payload(kWireBlocks * WireBlockBytes(), 7);
  return payload;
}

std::span<const uint8_t> BlockOf(size_t i) {
  return std::span<const uint8_t>(Payload()).subspan(i * WireBlockBytes(), WireBlockBytes());
}

// A message a block, sent from where it lies; the next when the one before is with the transport.
class BareStream final : public grpc::ServerGenericBidiReactor {
 public:
  BareStream() { StartRead(&request_); }
  void OnReadDone(bool) override { SendNext(); }
  void OnWriteDone(bool ok) override {
    if (ok) {
      SendNext();
    } else {
      Finish(grpc::Status::CANCELLED);
    }
  }
  void OnDone() override { delete this; }

 private:
  void SendNext() {
    if (sent_ == kWireBlocks) {
      Finish(grpc::Status::OK);
      return;
    }
    const std::span<const uint8_t> block = BlockOf(sent_++);
    const grpc::Slice slice(block.data(), block.size(), grpc::Slice::STATIC_SLICE);
    chunk_ = grpc::ByteBuffer(&slice, 1);
    StartWrite(&chunk_);
  }
  grpc::ByteBuffer request_, chunk_;
  size_t sent_ = 0;
};

class BareService final : public grpc::CallbackGenericService {
  grpc::ServerGenericBidiReactor* CreateReactor(grpc::GenericCallbackServerContext*) override {
    return new BareStream();
  }
};

// One transfer for each byte that comes.
void ServeBareTcp(store::ByteStream& stream) {
  std::array<uint8_t, 1> asked;
  while (true) {
    const auto got = stream.Receive(asked, absl::Hours(1));
    if (!got.ok()) return;
    for (size_t i = 0; i < kWireBlocks; ++i) {
      std::span<const uint8_t> rest = BlockOf(i);
      while (!rest.empty()) {
        const auto sent = stream.Send(rest, kPatience);
        if (!sent.ok()) return;
        rest = rest.subspan(*sent);
      }
    }
  }
}

void AcceptBareTcp(store::ByteListener& listener) {
  while (true) {
    auto stream = listener.Accept(absl::Hours(1));
    if (!stream.ok()) return;
    std::thread([held = std::move(*stream)] { ServeBareTcp(*held); }).detach();
  }
}

// Of a child, where its parent leaves its credentials.
std::string CertificateIn(const std::string& directory) { return directory + "/wire.pem"; }
std::string KeyIn(const std::string& directory) { return directory + "/wire.key"; }

absl::Status Serve(const std::string& directory) {
  std::optional<store::TlsCredentials> tls;
  std::unique_ptr<store::ByteStreamDoor> tls_streams;
  if (std::filesystem::exists(CertificateIn(directory))) {
    CAIRN_ASSIGN_OR_RETURN(tls, store::ReadTls(CertificateIn(directory), KeyIn(directory), ""));
    CAIRN_ASSIGN_OR_RETURN(tls_streams, store::TlsListeners(*tls));
  }
  CAIRN_ASSIGN_OR_RETURN(
      const std::unique_ptr<store::HostTier> host,
      store::HostTier::Create(
          {.capacity_bytes = 4 * (kWireBlocks + 8) * RoundUpToIo(WireBlockBytes())}));
  CAIRN_ASSIGN_OR_RETURN(
      const std::unique_ptr<cache::CacheCore> core,
      cache::CacheCore::Create({.default_tenant_key = "bench", .tenant_keys = {}, .policy = {}},
                               *host, nullptr, RealClock(), SystemRandom()));
  CAIRN_ASSIGN_OR_RETURN(
      const std::unique_ptr<cache::CacheServer> server,
      cache::CacheServer::Start({.socket = directory + "/wire.sock",
                                 .listen = "127.0.0.1:0",
                                 .admin_socket = "",
                                 .bulk_listen = "127.0.0.1:0",
                                 .version = "bench",
                                 .tls = tls},
                                *core, RealClock(), SystemRandom(), store::UnixSockets()));
  BareService bare;
  int grpc_port = 0;
  grpc::ServerBuilder builder;
  builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &grpc_port);
  builder.RegisterCallbackGenericService(&bare);
  const std::unique_ptr<grpc::Server> bare_server = builder.BuildAndStart();
  if (bare_server == nullptr) return absl::UnavailableError("the bare gRPC server did not start");
  CAIRN_ASSIGN_OR_RETURN(
      const std::unique_ptr<store::ByteListener> tcp,
      (tls_streams != nullptr ? *tls_streams : store::TcpStreams()).Listen("127.0.0.1:0"));
  std::thread([&tcp] { AcceptBareTcp(*tcp); }).detach();
  ServingChild::ServeUntilLetGo(absl::StrCat(server->tcp_port(), " ", grpc_port, " ", tcp->port()));
}

}  // namespace

uint64_t WireBlockBytes() {
  static const uint64_t bytes = FlashLayout().entry_bytes(cache::LayoutScope::kPrefix);
  return bytes;
}

int WireServe(const std::string& directory) {
  const absl::Status status = Serve(directory);
  std::fprintf(stderr, "cairn-bench %s: %s\n", kWireServe, std::string(status.message()).c_str());
  return 1;
}

absl::StatusOr<std::unique_ptr<WireHost>> WireHost::Start(
    const std::string& directory, const std::optional<store::TlsCredentials>& tls) {
  std::unique_ptr<WireHost> host(new WireHost());
  std::filesystem::remove(CertificateIn(directory));
  if (tls.has_value()) {
    std::ofstream(CertificateIn(directory)) << tls->certificate;
    std::ofstream(KeyIn(directory)) << tls->key;
  }
  CAIRN_ASSIGN_OR_RETURN(host->child_, ServingChild::Start(kWireServe, directory));
  if (std::sscanf(host->child_->said().c_str(), "%d %d %d", &host->cache_port_, &host->grpc_port_,
                  &host->tcp_port_) != 3) {
    return absl::UnavailableError("the serving process did not start");
  }
  return host;
}

}  // namespace cairn::bench
