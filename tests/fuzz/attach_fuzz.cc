// The daemon's side of the attach handshake (cache/client/attach_protocol.h), over sockets in
// memory: any message with any descriptor gets one well-formed answer, and only a request of an
// open session within its bounds gets memory.
//
// flags u8, then the message. The flags write the session's token into it, and choose what
// descriptor goes with it.
#include <sys/mman.h>

#include <vector>

#include "cache/client/attach_protocol.h"
#include "cache/core/cache_core.h"
#include "cache/core/rig_entries.h"
#include "cache/service/attach_server.h"
#include "store/base/random.h"
#include "store/device/fake_gpu.h"
#include "store/device/shared_memory.h"
#include "store/tier/gpu_tier.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::cache {
namespace {

constexpr char kPath[] = "/fuzz.fd";
constexpr absl::Duration kPatience = absl::Seconds(30);
constexpr uint64_t kStagingBytes = 2 * kIoAlignment;
constexpr uint8_t kRightToken = 1;

// A daemon's parts around the server, once a process.
struct Daemon {
  Daemon() {
    CacheCore::Options options;
    options.background_writes = options.background_load = false;
    host = *store::HostTier::Create(
        {.capacity_bytes = 8 * kIoAlignment, .memory = store::ArenaMemory::kAtUse});
    options.gpu = &gpu;
    options.gpu_tier = pool.get();
    core = *CacheCore::Create(options, *host, nullptr, clock, SystemRandom());
    Registration registration;
    core_session = *core->OpenSession(RigSpec(), &registration);
    server = *AttachServer::Start(kPath, sockets, *core, sessions);
    sealed = *store::SharedMemory::Create("sealed", {.bytes = kStagingBytes, .prefault = false});
    unsealed = store::FileDescriptor(::memfd_create("unsealed", MFD_CLOEXEC));
    FUZZ_CHECK(::ftruncate(unsealed.get(), static_cast<off_t>(kStagingBytes)) == 0);
    device = store::FileDescriptor(::open("/dev/null", O_RDWR | O_CLOEXEC));
    FUZZ_CHECK(unsealed.valid() && device.valid());
  }
  int Descriptor(uint8_t kind) const {
    const int all[] = {-1, sealed.descriptor(), unsealed.get(), device.get()};
    return all[kind % std::size(all)];
  }

  FakeClock clock;
  store::MemorySockets sockets;
  store::FakeGpu gpu;
  std::unique_ptr<store::GpuTier> pool = *store::GpuTier::Create(gpu, 8 * kIoAlignment);
  std::unique_ptr<store::HostTier> host;
  std::unique_ptr<CacheCore> core;
  SessionId core_session = 0;
  SessionTable sessions{SystemRandom()};
  std::unique_ptr<AttachServer> server;
  store::SharedMemory sealed;
  store::FileDescriptor unsealed, device;
};

AttachAnswer Ask(Daemon& daemon, std::span<const uint8_t> message, int descriptor, bool* given) {
  const auto connection = daemon.sockets.Connect(kPath, kPatience);
  FUZZ_CHECK_OK(connection.status());
  FUZZ_CHECK_OK((*connection)->Send(message, descriptor, kPatience));
  const absl::StatusOr<store::SocketMessage> raw = (*connection)->Receive(4096, kPatience);
  FUZZ_CHECK_OK(raw.status());
  AttachAnswer answer;
  FUZZ_CHECK(raw->bytes.size() == sizeof(answer));
  std::memcpy(&answer, raw->bytes.data(), sizeof(answer));
  *given = raw->descriptor.valid();
  return answer;
}

void CheckAnswer(const Daemon& daemon, const AttachAnswer& answer, bool given,
                 std::span<const uint8_t> message, int descriptor, const std::string& token) {
  FUZZ_CHECK(answer.magic == kAttachMagic && answer.version == kAttachVersion);
  if (answer.code != 0) {
    FUZZ_CHECK(answer.code <= static_cast<uint32_t>(absl::StatusCode::kUnauthenticated));
    FUZZ_CHECK(answer.message[0] != 0 && !given && answer.bytes == 0);
    return;
  }
  AttachRequest request;
  FUZZ_CHECK(message.size() == sizeof(request));
  std::memcpy(&request, message.data(), sizeof(request));
  FUZZ_CHECK(request.magic == kAttachMagic && request.version == kAttachVersion);
  FUZZ_CHECK(std::equal(request.token.begin(), request.token.end(), token.begin(),
                        [](uint8_t a, char b) { return a == static_cast<uint8_t>(b); }));
  if (request.kind == static_cast<uint32_t>(AttachKind::kArena)) {
    FUZZ_CHECK(given && answer.bytes == daemon.core->arena_bytes());
  } else if (request.kind == static_cast<uint32_t>(AttachKind::kGpuPool)) {
    FUZZ_CHECK(given && answer.bytes == daemon.core->gpu_bytes());
  } else {
    FUZZ_CHECK(request.kind == static_cast<uint32_t>(AttachKind::kStaging));
    FUZZ_CHECK(!given && descriptor == daemon.sealed.descriptor());
    FUZZ_CHECK(answer.bytes == kStagingBytes && request.bytes == kStagingBytes);
  }
}

}  // namespace
}  // namespace cairn::cache

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  static Daemon& daemon = *new Daemon;  // its threads live as long as the process
  cairn::fuzz::FuzzInput input(data, size);
  const auto flags = input.Take<uint8_t>();
  const std::span<const uint8_t> rest = input.TakeBytes(cairn::store::kSocketMessageBytesMax);
  if (rest.empty()) return 0;  // no message
  std::vector<uint8_t> message(rest.begin(), rest.end());
  const auto session = daemon.sessions.Add(daemon.core_session, true);
  constexpr size_t kTokenAt = offsetof(AttachRequest, token);
  if ((flags & kRightToken) != 0 && message.size() >= kTokenAt + session->token().size()) {
    std::copy(session->token().begin(), session->token().end(), message.begin() + kTokenAt);
  }
  const int descriptor = daemon.Descriptor(flags >> 1);
  bool given = false;
  const AttachAnswer answer = Ask(daemon, message, descriptor, &given);
  CheckAnswer(daemon, answer, given, message, descriptor, session->token());
  // A staging piece is there whole, or there is none.
  const bool staged = answer.code == 0 && !given;
  FUZZ_CHECK(session->StagingRange(0, 0, kStagingBytes).ok() == staged);
  daemon.sessions.Remove(session->token());
  return 0;
}
