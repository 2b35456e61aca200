// The client's side of the attach handshake (cache/client/attach_client.h) against a daemon that
// answers anything: memory is mapped only if it is sealed and as long as was registered.
//
// flags u8 (staging, arena or GPU pool; which descriptor), then the answer.
#include <sys/mman.h>

#include <vector>

#include "cache/client/attach_client.h"
#include "cache/client/attach_protocol.h"
#include "store/base/limits.h"
#include "store/device/fake_gpu.h"
#include "tests/fuzz/fuzz_input.h"

namespace cairn::cache {
namespace {

constexpr uint64_t kArenaBytes = 2 * kIoAlignment;

// Says one thing to everybody.
class LyingDaemon final : public store::SocketDoor {
 public:
  LyingDaemon(std::span<const uint8_t> answer, int descriptor)
      : answer_(answer), descriptor_(descriptor) {}
  absl::StatusOr<std::unique_ptr<store::Listener>> Listen(const std::string& path) override {
    return absl::FailedPreconditionError(path);
  }
  absl::StatusOr<std::unique_ptr<store::Connection>> Connect(const std::string&,
                                                             absl::Duration) override {
    return std::make_unique<Line>(*this);
  }

 private:
  class Line final : public store::Connection {
   public:
    explicit Line(const LyingDaemon& daemon) : daemon_(daemon) {}
    absl::Status Send(std::span<const uint8_t> bytes, int, absl::Duration) override {
      FUZZ_CHECK(bytes.size() == sizeof(AttachRequest));
      return absl::OkStatus();
    }
    absl::StatusOr<store::SocketMessage> Receive(size_t bytes_max, absl::Duration) override {
      if (daemon_.answer_.size() > bytes_max) return absl::InvalidArgumentError("too long");
      store::SocketMessage message;
      message.bytes.assign(daemon_.answer_.begin(), daemon_.answer_.end());
      if (daemon_.descriptor_ >= 0) {
        message.descriptor = store::FileDescriptor::Duplicate(daemon_.descriptor_);
      }
      return message;
    }
    absl::StatusOr<store::PeerCredentials> Peer() const override {
      return store::PeerCredentials{};
    }
    void Shutdown() override {}

   private:
    const LyingDaemon& daemon_;
  };

  const std::span<const uint8_t> answer_;
  const int descriptor_;
};

int Descriptor(uint8_t kind) {
  static const auto sealed =
      *store::SharedMemory::Create("sealed", {.bytes = kArenaBytes, .prefault = false});
  static const auto longer =
      *store::SharedMemory::Create("longer", {.bytes = 2 * kArenaBytes, .prefault = false});
  static const store::FileDescriptor unsealed(::memfd_create("unsealed", MFD_CLOEXEC));
  FUZZ_CHECK(::ftruncate(unsealed.get(), static_cast<off_t>(kArenaBytes)) == 0);
  const int all[] = {-1, sealed.descriptor(), longer.descriptor(), unsealed.get()};
  return all[kind % std::size(all)];
}

}  // namespace
}  // namespace cairn::cache

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace cairn::cache;
  cairn::fuzz::FuzzInput input(data, size);
  const auto flags = input.Take<uint8_t>();
  const int descriptor = Descriptor(flags >> 1);
  LyingDaemon daemon(input.TakeRest(), descriptor);
  AttachClient client(daemon, "/d.fd", std::string(16, 't'), absl::Seconds(1));
  if ((flags & 1) != 0) {
    const absl::StatusOr<uint32_t> piece = client.GiveStaging(Descriptor(1), kArenaBytes);
    if (!piece.ok()) FUZZ_CHECK(piece.status().message().size() <= 1024);
    return 0;
  }
  if ((flags & 0x80) != 0) {
    static cairn::store::FakeGpu& gpu = *new cairn::store::FakeGpu;
    absl::StatusOr<cairn::store::GpuExport> pool = client.TakeGpuPool(kArenaBytes);
    if (!pool.ok()) {
      FUZZ_CHECK(pool.status().message().size() <= 1024);
      return 0;
    }
    const auto region = gpu.Import(*std::move(pool));
    FUZZ_CHECK(region.ok() == (descriptor == Descriptor(1)));
    FUZZ_CHECK(!region.ok() || (*region)->bytes() == kArenaBytes);
    return 0;
  }
  const auto arena = client.TakeArena(kArenaBytes);
  if (!arena.ok()) {
    FUZZ_CHECK(arena.status().message().size() <= 1024);
    return 0;
  }
  FUZZ_CHECK(descriptor == Descriptor(1));
  FUZZ_CHECK(arena->size() == kArenaBytes && arena->writable().empty());
  return 0;
}
