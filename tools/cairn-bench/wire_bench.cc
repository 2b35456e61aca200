// Fetch by another host's client, over TCP on loopback: by gRPC stream and by the bulk port. All
// servers are in a process of their own (wire_server.h); every figure is of bytes in this process.
#include <grpcpp/grpcpp.h>
#include <grpcpp/support/sync_stream.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "cache/client/digest_chain.h"
#include "cache/client/remote_cache.h"
#include "store/base/checksum.h"
#include "store/base/clock.h"
#include "store/base/limits.h"
#include "store/base/random.h"
#include "store/device/byte_stream.h"
#include "store/device/tls_test_certificates.h"
#include "tools/cairn-bench/benches.h"
#include "tools/cairn-bench/flash_layout.h"
#include "tools/cairn-bench/tcp_rivals.h"
#include "tools/cairn-bench/wire_server.h"

namespace cairn::bench {
namespace {

constexpr int64_t kMeasureNanos = 1'000'000'000;
constexpr absl::Duration kPatience = absl::Seconds(20);
constexpr size_t kReceiveBytes = 256 << 10;  // of one receive, ours and the limit's
constexpr size_t kRedisValueBytes = 1 << 20, kMemcachedValueBytes = 900'000, kValues = 32;
constexpr uint32_t kGroups = 8;
const uint32_t kStreams = cache::RemoteCacheOptions().bulk_streams;

// Transfers until the second is over; GB/s.
template <typename Transfer>
absl::StatusOr<double> Rate(Transfer transfer) {
  const int64_t begin = RealClock().NowNanos();
  uint64_t bytes = 0;
  int64_t now = begin;
  do {
    CAIRN_ASSIGN_OR_RETURN(const uint64_t more, transfer());
    bytes += more;
    now = RealClock().NowNanos();
  } while (now - begin < kMeasureNanos);
  return static_cast<double>(bytes) / static_cast<double>(now - begin);
}

struct Ours {
  std::unique_ptr<cache::CacheApi> cache;
  std::vector<Digest> chain;

  absl::Status Put() {
    const std::vector<uint32_t> sizes = FlashLayout().part_bytes(cache::LayoutScope::kPrefix);
    for (size_t i = 0; i < chain.size(); ++i) {
      const cache::ReserveItem item = {{chain[i], EntryKind::kRows},
                                       i == 0 ? cache->registration().root : chain[i - 1],
                                       static_cast<uint32_t>(i)};
      CAIRN_ASSIGN_OR_RETURN(const auto reserved, cache->Reserve({&item, 1}, absl::ZeroDuration()));
      if (reserved[0].state == cache::ReserveState::kExists) continue;  // put by another client
      CAIRN_ASSIGN_OR_RETURN(const auto staging, cache->Stage(WireBlockBytes()));
      SeededRandom(i).Fill(staging->bytes);
      cache::CommitItem commit{reserved[0].reservation, staging.get(), {}};
      size_t at = 0;
      for (const uint32_t bytes : sizes) {
        commit.parts.push_back({bytes, Checksum(staging->bytes.subspan(at, bytes))});
        at += bytes;
      }
      CAIRN_ASSIGN_OR_RETURN(const auto statuses, cache->Commit({&commit, 1}, false));
      CAIRN_RETURN_IF_ERROR(statuses[0]);
    }
    return absl::OkStatus();
  }
  // Fetch verifies as the bytes arrive, and says so.
  absl::StatusOr<uint64_t> Fetch() {
    CAIRN_ASSIGN_OR_RETURN(const auto prefix, cache->Fetch({.chain = chain, .checkpoint = false}));
    if (prefix->rows.size() != chain.size() || !prefix->verified) {
      return absl::InternalError("the fetched prefix is not whole and verified");
    }
    return prefix->copied_bytes;
  }
  // As an engine does that computes the first layers meanwhile; this one only waits.
  absl::StatusOr<uint64_t> FetchInGroups() {
    const cache::EntryShapes shapes(FlashLayout());
    std::vector<cache::PartGroup> groups;
    for (uint32_t i = 1; i <= kGroups; ++i) {
      groups.push_back({static_cast<uint32_t>(shapes.rows.size()) * i / kGroups,
                        static_cast<uint32_t>(shapes.checkpoint.size()) * i / kGroups});
    }
    CAIRN_ASSIGN_OR_RETURN(const auto prefix,
                           cache->Fetch({.chain = chain, .checkpoint = false, .groups = groups}));
    CAIRN_RETURN_IF_ERROR(prefix->Await(kGroups));
    return prefix->copied_bytes;
  }
};

// `streams`: the bulk port's; 0: by gRPC.
absl::StatusOr<std::shared_ptr<Ours>> Connect(
    const WireHost& host, uint32_t streams,
    const std::optional<store::TlsCredentials>& tls = std::nullopt) {
  auto ours = std::make_shared<Ours>();
  cache::RemoteCacheOptions options;
  options.call_timeout = options.stall_timeout = kPatience;
  options.bulk = streams > 0;
  options.bulk_streams = streams;
  options.tls = tls;
  CAIRN_ASSIGN_OR_RETURN(ours->cache,
                         cache::ConnectCache(absl::StrCat("127.0.0.1:", host.cache_port()),
                                             {FlashLayout(), ""}, options));
  const std::vector<int32_t> tokens(kWireBlocks * kBlockTokens, 1);
  ours->chain = cache::DigestChain(ours->cache->registration().root, tokens);
  CAIRN_RETURN_IF_ERROR(ours->Put());
  CAIRN_RETURN_IF_ERROR(ours->Fetch().status());  // memory is touched, connections are made
  return ours;
}

// A client of the bare stream: messages are counted, and their bytes left where gRPC put them or
// copied to where the caller wants them.
struct BareGrpc {
  std::shared_ptr<grpc::Channel> channel;
  std::vector<uint8_t> memory;

  absl::StatusOr<uint64_t> Stream(bool copy) {
    static const grpc::internal::RpcMethod kMethod(kBareStreamMethod,
                                                   grpc::internal::RpcMethod::SERVER_STREAMING);
    grpc::ClientContext context;
    const grpc::Slice nothing("");
    const std::unique_ptr<grpc::ClientReader<grpc::ByteBuffer>> reader(
        grpc::internal::ClientReaderFactory<grpc::ByteBuffer>::Create(
            channel.get(), kMethod, &context, grpc::ByteBuffer(&nothing, 1)));
    grpc::ByteBuffer message;
    uint64_t bytes = 0;
    std::vector<grpc::Slice> slices;
    while (reader->Read(&message)) {
      if (!copy) {
        bytes += message.Length();
        continue;
      }
      slices.clear();
      if (!message.Dump(&slices).ok()) return absl::InternalError("no slices");
      for (const grpc::Slice& slice : slices) {
        std::memcpy(memory.data() + bytes, slice.begin(), slice.size());
        bytes += slice.size();
      }
    }
    if (!reader->Finish().ok() || bytes != kWireBlocks * WireBlockBytes()) {
      return absl::UnavailableError("the bare stream broke");
    }
    return bytes;
  }
};

absl::StatusOr<Prepared> PrepareGrpc(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<WireHost> host, WireHost::Start(context.directory));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<Ours> ours, Connect(*host, 0));
  auto bare = std::make_shared<BareGrpc>();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(-1);
  bare->channel = grpc::CreateCustomChannel(absl::StrCat("127.0.0.1:", host->grpc_port()),
                                            grpc::InsecureChannelCredentials(), arguments);
  bare->memory.resize(kWireBlocks * WireBlockBytes(), 1);
  const auto stream = [host, bare](bool copy) { return Rate([&] { return bare->Stream(copy); }); };
  return Prepared{
      .contenders = {{"bare gRPC stream, copied out to memory", Role::kLimit,
                      [stream] { return stream(true); }},
                     {"fetch by gRPC stream, verified", Role::kOurs,
                      [host, ours] { return Rate([&] { return ours->Fetch(); }); }},
                     {"the same in 8 groups of layers", Role::kRival,
                      [host, ours] { return Rate([&] { return ours->FetchInGroups(); }); }},
                     {"bare gRPC stream, bytes not looked at", Role::kRival,
                      [stream] { return stream(false); }}},
      .left_out = {}};
}

// The bare TCP server's bytes, into memory of their whole size (as ours needs) or always the same
// piece of it, which is in cache.
struct BareTcp {
  std::unique_ptr<store::ByteStream> stream;
  std::vector<uint8_t> memory;

  absl::StatusOr<uint64_t> Transfer(bool whole) {
    const uint8_t ask = 1;
    CAIRN_RETURN_IF_ERROR(stream->Send({&ask, 1}, kPatience).status());
    uint64_t done = 0;
    while (done < memory.size()) {
      const std::span<uint8_t> rest = std::span(memory).subspan(whole ? done : 0);
      const uint64_t most = std::min<uint64_t>(memory.size() - done, kReceiveBytes);
      CAIRN_ASSIGN_OR_RETURN(const size_t got, stream->Receive(rest.first(most), kPatience));
      done += got;
    }
    return done;
  }
};

struct RivalReader {
  std::unique_ptr<TcpRival> rival;
  std::vector<uint8_t> value;
  size_t next = 0;

  static std::string Key(size_t i) { return absl::StrCat("key", i % kValues); }
  // Reads that many values with as many in flight.
  absl::StatusOr<uint64_t> Get(size_t in_flight) {
    for (size_t i = 0; i < in_flight; ++i) CAIRN_RETURN_IF_ERROR(rival->Ask(Key(next + i)));
    for (size_t i = 0; i < in_flight; ++i) CAIRN_RETURN_IF_ERROR(rival->Take(Key(next + i), value));
    next += in_flight;
    return in_flight * value.size();
  }
};

void AddRival(const std::string& name, absl::StatusOr<std::unique_ptr<TcpRival>> started,
              size_t value_bytes, const std::vector<size_t>& in_flight, Prepared& prepared) {
  auto reader = std::make_shared<RivalReader>();
  absl::Status status = started.status();
  reader->value.resize(value_bytes, 5);
  if (status.ok()) {
    reader->rival = *std::move(started);
    for (size_t i = 0; i < kValues; ++i) {
      status.Update(reader->rival->Set(RivalReader::Key(i), reader->value));
    }
  }
  if (!status.ok()) {
    prepared.left_out.push_back(absl::StrCat(name, ": ", std::string(status.message())));
    return;
  }
  for (const size_t count : in_flight) {
    prepared.contenders.push_back(
        {absl::StrCat(name, ", ", count, " in flight, not verified"), Role::kRival,
         [reader, count] { return Rate([&] { return reader->Get(count); }); }});
  }
}

absl::StatusOr<Prepared> PrepareBulkTls(const BenchContext& context) {
  const store::TlsCredentials credentials = store::TestAuthority().Issue("IP:127.0.0.1");
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<WireHost> host,
                         WireHost::Start(context.directory, credentials));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<Ours> ours, Connect(*host, kStreams, credentials));
  CAIRN_ASSIGN_OR_RETURN(const auto streams, store::TlsConnections(credentials, "127.0.0.1"));
  auto bare = std::make_shared<BareTcp>();
  CAIRN_ASSIGN_OR_RETURN(
      bare->stream,
      streams->Connect("127.0.0.1", static_cast<uint16_t>(host->tcp_port()), kPatience));
  bare->memory.resize(kWireBlocks * WireBlockBytes(), 1);
  return Prepared{
      .contenders = {{"bare TLS stream into reused memory of the whole", Role::kLimit,
                      [host, bare] { return Rate([&] { return bare->Transfer(true); }); }},
                     {"fetch by the bulk port under TLS, verified", Role::kOurs,
                      [host, ours] { return Rate([&] { return ours->Fetch(); }); }}},
      .left_out = {}};
}

absl::StatusOr<Prepared> PrepareBulk(const BenchContext& context) {
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<WireHost> host, WireHost::Start(context.directory));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<Ours> ours, Connect(*host, kStreams));
  CAIRN_ASSIGN_OR_RETURN(std::shared_ptr<Ours> by_one, Connect(*host, 1));
  auto bare = std::make_shared<BareTcp>();
  CAIRN_ASSIGN_OR_RETURN(
      bare->stream,
      store::TcpStreams().Connect("127.0.0.1", static_cast<uint16_t>(host->tcp_port()), kPatience));
  bare->memory.resize(kWireBlocks * WireBlockBytes(), 1);
  const auto transfer = [host, bare](bool whole) {
    return Rate([&] { return bare->Transfer(whole); });
  };
  Prepared prepared{
      .contenders = {{"bare TCP stream into reused memory of the whole", Role::kLimit,
                      [transfer] { return transfer(true); }},
                     {"fetch by the bulk port, verified", Role::kOurs,
                      [host, ours] { return Rate([&] { return ours->Fetch(); }); }},
                     {"the same in 8 groups of layers", Role::kRival,
                      [host, ours] { return Rate([&] { return ours->FetchInGroups(); }); }},
                     {"the same by one connection", Role::kRival,
                      [host, by_one] { return Rate([&] { return by_one->Fetch(); }); }},
                     {"bare TCP stream into one 256 KiB buffer", Role::kRival,
                      [transfer] { return transfer(false); }}},
      .left_out = {}};
  AddRival("redis-server GET of 1 MiB over TCP", TcpRival::StartRedis(), kRedisValueBytes, {1, 8},
           prepared);
  AddRival("memcached get of 900 kB over TCP", TcpRival::StartMemcached(), kMemcachedValueBytes,
           {1}, prepared);
  return prepared;
}

}  // namespace

void AddWireBenches(std::vector<Bench>& benches) {
  benches.push_back({.name = "wire-grpc",
                     .what = "fetch of 512 Flash blocks (449,824 B each) by gRPC stream, TCP "
                             "loopback, servers in another process",
                     .unit = "GB/s",
                     .ratio_bound = 0.9,
                     .prepare = PrepareGrpc});
  benches.push_back({.name = "wire-bulk",
                     .what = "fetch of 512 Flash blocks (449,824 B each) by the bulk port, TCP "
                             "loopback, servers in another process",
                     .unit = "GB/s",
                     .ratio_bound = 0.9,
                     .prepare = PrepareBulk});
  benches.push_back({.name = "wire-bulk-tls",
                     .what = "the same under TLS 1.3",
                     .unit = "GB/s",
                     .ratio_bound = 0.9,
                     .prepare = PrepareBulkTls});
}

}  // namespace cairn::bench
