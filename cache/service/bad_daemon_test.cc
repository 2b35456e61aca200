// Goal: a daemon that lies, hangs or never answers costs a client an error or a deadline. Method: a
// core that answers what it is told, and a service that does.
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <functional>
#include <future>
#include <utility>

#include "cache/client/protocol.h"
#include "cache/service/scripted_core.h"
#include "cache/service/service_rig.h"
#include "gmock/gmock.h"
#include "store/device/fake_gpu.h"

namespace cairn::cache {
namespace {

class LyingDaemon : public testing::Test {
 protected:
  void Start() {
    auto started = StartServer(core_, RealClock(), folder_, "127.0.0.1:0");
    ASSERT_TRUE(started.ok()) << started.status();
    server_ = std::move(*started);
  }
  std::unique_ptr<CacheApi> Connect(bool mapped, bool bulk = false, bool lookups = true) {
    const std::string target =
        mapped ? "unix:" + folder_ / "cairn.sock" : absl::StrCat("127.0.0.1:", server_->tcp_port());
    RemoteCacheOptions options = PatientOptions();
    options.bulk = bulk;
    options.lookups = lookups;
    auto cache = ConnectCache(target, RigSpec(), options);
    EXPECT_TRUE(cache.ok()) << cache.status();
    return std::move(*cache);
  }
  // The call is refused, and the daemon is not asked again.
  static void ExpectBroken(CacheApi& cache, const absl::Status& status) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_NE(std::string(status.message()).find("wrong"), std::string::npos) << status;
    EXPECT_TRUE(absl::IsUnavailable(cache.Match({}).status()));
  }

  TestFolder folder_;
  ScriptedCore core_;
  std::unique_ptr<CacheServer> server_;
  const std::vector<Digest> chain_ = std::vector<Digest>(2);
};

TEST_F(LyingDaemon, AnHonestAnswerIsTaken) {
  Start();
  core_.fetch = [&] { return core_.Honest(); };
  for (const bool mapped : {true, false}) {
    const auto cache = Connect(mapped);
    const auto prefix = cache->Fetch({.chain = chain_});
    ASSERT_TRUE(prefix.ok()) << prefix.status();
    ExpectPrefix(**prefix, chain_);
  }
}

TEST_F(LyingDaemon, FetchesThatDoNotFit) {
  Start();
  // A stream has no offsets, a mapped answer neither sizes nor parts: they are the layout's.
  constexpr size_t kMappedOnly = 3, kBoth = 4;
  const std::vector<std::function<void(LeasedPrefix&)>> lies = {
      [](auto& p) { p.rows[0].arena_offset = 64 * kIoAlignment; },
      [](auto& p) { p.rows[0].arena_offset = UINT64_MAX - 4095; },
      [](auto& p) { p.checkpoint->arena_offset = 63 * kIoAlignment; },
      [](auto& p) { p.rows.push_back(p.rows[0]); },
      [](auto& p) { p.rows[1].payload = p.rows[1].payload.first(2147); },
      [](auto& p) { p.rows[1].part_xxh3 = p.rows[1].part_xxh3.first(1); },
      [](auto& p) { p.checkpoint->part_xxh3 = p.rows[0].part_xxh3; },
  };
  for (size_t i = 0; i < lies.size(); ++i) {
    core_.fetch = [&] {
      LeasedPrefix prefix = core_.Honest();
      lies[i](prefix);
      return prefix;
    };
    SCOPED_TRACE(i);
    if (i < kBoth) {
      const auto cache = Connect(true);
      ExpectBroken(*cache, cache->Fetch({.chain = chain_}).status());
    }
    if (i < kMappedOnly) continue;
    for (const bool bulk : {false, true}) {
      const auto streamed = Connect(false, bulk);
      ExpectBroken(*streamed, streamed->Fetch({.chain = chain_}).status());
    }
  }
}

TEST_F(LyingDaemon, BytesThatAreNotWhatTheirChecksumsSayAreDeliveredUnverified) {
  Start();
  std::vector<uint64_t> other;
  core_.fetch = [&] {
    LeasedPrefix prefix;
    prefix.rows = {core_.Entry(EntryKind::kRows, 4096), core_.Entry(EntryKind::kRows, 8192)};
    other.assign(prefix.rows[1].part_xxh3.begin(), prefix.rows[1].part_xxh3.end());
    other[1] ^= 1;
    prefix.rows[1].part_xxh3 = other;
    return prefix;
  };
  for (const bool bulk : {false, true}) {
    const auto cache = Connect(false, bulk);
    const auto prefix = cache->Fetch({.chain = chain_});
    ASSERT_TRUE(prefix.ok()) << prefix.status();
    EXPECT_EQ((*prefix)->rows.size(), 2u);
    EXPECT_FALSE((*prefix)->verified);
  }
}

TEST_F(LyingDaemon, LeasesThatDoNotFitTheirMatch) {
  Start();
  const auto honest = [&] {
    CoreMatch match{{.rows_blocks = 2, .rows_host_blocks = 2}, core_.Honest()};
    match.found.checkpoints = {{2, Tier::kHost}};
    return match;
  };
  core_.match_and_lease = honest;
  auto cache = Connect(true);
  const auto match = cache->Match(chain_, {.lease_host = true});
  ASSERT_TRUE(match.ok()) << match.status();
  ExpectPrefix(*match->leased, chain_);
  const std::vector<std::function<void(CoreMatch&)>> lies = {
      [](auto& m) { m.leased->rows.pop_back(); },
      [](auto& m) { m.leased->checkpoint.reset(); },
      [](auto& m) { m.leased->rows.push_back(m.leased->rows[0]); },
      [](auto& m) { m.found.checkpoints.clear(); },
      [](auto& m) { m.found.checkpoints[0].blocks = 1; },
      [](auto& m) { m.leased->rows[1].arena_offset = 64 * kIoAlignment; },
      [](auto& m) { m.leased->rows[1].arena_offset += 8; },
  };
  for (size_t i = 0; i < 2 * lies.size(); ++i) {
    SCOPED_TRACE(i);
    core_.match_and_lease = [&] {
      CoreMatch lie = honest();
      lies[i / 2](lie);
      return lie;
    };
    cache = Connect(true, false, i % 2 == 0);
    ExpectBroken(*cache, cache->Match(chain_, {.lease_host = true}).status());
  }
}

TEST_F(LyingDaemon, AnotherTableThanTheAnswersIsNotBelieved) {
  Start();
  core_.fetch = [&] {
    LeasedPrefix prefix = core_.Honest();
    prefix.rows[0].table_xxh3 ^= 1;
    return prefix;
  };
  const auto cache = Connect(true);
  const auto prefix = cache->Fetch({.chain = chain_});
  ASSERT_TRUE(prefix.ok()) << prefix.status();
  EXPECT_TRUE(absl::IsDataLoss((*prefix)->rows[0].Verify()));
  EXPECT_TRUE((*prefix)->rows[1].Verify().ok());
}

TEST_F(LyingDaemon, OtherAnswersThatDoNotFit) {
  Start();
  core_.match = [] { return MatchResult{.rows_blocks = 3}; };
  auto cache = Connect(true);
  ExpectBroken(*cache, cache->Match(chain_).status());
  cache = Connect(true, false, false);
  ExpectBroken(*cache, cache->Match(chain_).status());
  cache = Connect(true);
  const ReserveItem item;
  ExpectBroken(*cache, cache->Reserve({&item, 1}, absl::ZeroDuration()).status());
  for (const bool mapped : {true, false}) {
    cache = Connect(mapped);
    auto staging = *cache->Stage(10);
    const CommitItem commit{1, staging.get(), {{10, 1}}};
    ExpectBroken(*cache, cache->Commit({&commit, 1}, false).status());
  }
  cache = Connect(true);
  ExpectBroken(*cache, cache->Stats().status());
}

TEST_F(LyingDaemon, AnArenaThatIsNotAsRegisteredIsNotMapped) {
  core_.claimed_arena_bytes = 65 * kIoAlignment;
  Start();
  const auto cache = ConnectCache("unix:" + folder_ / "cairn.sock", RigSpec(), PatientOptions());
  EXPECT_TRUE(absl::IsUnavailable(cache.status())) << cache.status();
}

TEST_F(LyingDaemon, AGpuPoolThatIsNotAsRegisteredIsALie) {
  store::FakeGpu gpu;
  const auto pool = *gpu.Allocate(4 * kIoAlignment, store::GpuSharing::kExportable);
  core_.claimed_gpu_bytes = 5 * kIoAlignment;
  core_.attach_gpu = [&] { return pool->Export(); };
  Start();
  RemoteCacheOptions options = PatientOptions();
  options.gpu = &gpu;
  const auto cache = ConnectCache("unix:" + folder_ / "cairn.sock", RigSpec(), options);
  EXPECT_TRUE(absl::IsUnavailable(cache.status())) << cache.status();
}

TEST_F(LyingDaemon, AGpuPoolThatCannotBeMappedIsDoneWithout) {
  store::FakeGpu gpu;
  core_.claimed_gpu_bytes = 4 * kIoAlignment;
  Start();
  RemoteCacheOptions options = PatientOptions();
  options.gpu = &gpu;
  const std::vector<std::function<absl::StatusOr<store::GpuExport>()>> troubles = {
      [] { return absl::FailedPreconditionError("given up"); },
      [] {
        store::GpuExport nothing;
        nothing.bytes = 4 * kIoAlignment;
        return nothing;
      },
  };
  for (const auto& trouble : troubles) {
    core_.attach_gpu = trouble;
    const auto cache = ConnectCache("unix:" + folder_ / "cairn.sock", RigSpec(), options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    EXPECT_TRUE((*cache)->registration().mapped);
    EXPECT_FALSE((*cache)->registration().gpu_mapped);
    // Then a place in it is one that nobody asked for.
    core_.fetch = [&] {
      LeasedPrefix prefix = core_.Honest();
      prefix.gpu_offsets = {0};
      return prefix;
    };
    ExpectBroken(**cache, (*cache)->Fetch({.chain = chain_}).status());
  }
}

TEST_F(LyingDaemon, AHungCallCostsItsDeadline) {
  Start();
  std::promise<void> release;
  const std::shared_future<void> held = release.get_future().share();
  core_.match = [held] {
    held.wait();
    return MatchResult();
  };
  for (const bool lookups : {true, false}) {
    RemoteCacheOptions options = PatientOptions();
    options.call_timeout = absl::Milliseconds(50);
    options.lookups = lookups;
    auto cache = ConnectCache("unix:" + folder_ / "cairn.sock", RigSpec(), options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    const int64_t begin = RealClock().NowNanos();
    EXPECT_TRUE(absl::IsDeadlineExceeded((*cache)->Match(chain_).status()));
    EXPECT_GE(RealClock().NowNanos() - begin, 45'000'000);
    EXPECT_LT(RealClock().NowNanos() - begin, 10'000'000'000);
  }
  release.set_value();
}

TEST_F(LyingDaemon, ALeaseWhoseAnswerCameTooLateIsReleased) {
  Start();
  std::promise<void> release;
  const std::shared_future<void> held = release.get_future().share();
  core_.match_and_lease = [held] {
    held.wait();
    return CoreMatch();
  };
  for (const bool lookups : {true, false}) {
    core_.asked_lease = core_.released_lease = 0;
    RemoteCacheOptions options = PatientOptions();
    options.call_timeout = absl::Milliseconds(50);
    options.lookups = lookups;
    auto cache = ConnectCache("unix:" + folder_ / "cairn.sock", RigSpec(), options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    EXPECT_TRUE(absl::IsDeadlineExceeded((*cache)->Match(chain_, {.lease_host = true}).status()));
    EXPECT_TRUE(Eventually([&] { return core_.released_lease != 0; }));
    // 0: the machine is so slow that the call was over before it arrived.
    EXPECT_THAT(core_.asked_lease.load(), testing::AnyOf(0u, core_.released_lease.load()));
  }
  release.set_value();
}

// A look-up whose answer does not come (here: no message holds it) is asked again by gRPC, under
// another number: the first may be leased.
TEST_F(LyingDaemon, ALeaseWhoseAnswerWasLostIsNotAskedForAgain) {
  Start();
  std::vector<LeaseId> asked;
  core_.match_and_lease = [&] {
    asked.push_back(core_.asked_lease);
    CoreMatch match{{.rows_blocks = 2, .rows_host_blocks = 2}, core_.Honest()};
    match.found.checkpoints = {{2, Tier::kHost}};
    match.leased->lease = asked.back();
    if (asked.size() == 1) match.leased->gpu_offsets.resize(store::kSocketMessageBytesMax);
    return match;
  };
  auto cache = Connect(true);
  const auto match = cache->Match(chain_, {.lease_host = true});
  ASSERT_TRUE(match.ok()) << match.status();
  ExpectPrefix(*match->leased, chain_);
  ASSERT_EQ(asked.size(), 2u);
  EXPECT_NE(asked[0], asked[1]);
  EXPECT_TRUE(Eventually([&] { return core_.released_lease == asked[0]; }));
}

TEST(BadDaemon, ADaemonThatNeverAnswersCostsTheConnectTimeout) {
  TestFolder folder;
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const std::string path = folder / "hung.sock";
  std::memcpy(address.sun_path, path.data(), path.size());
  const store::FileDescriptor hung(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  ASSERT_EQ(::bind(hung.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  ASSERT_EQ(::listen(hung.get(), 5), 0);
  RemoteCacheOptions options;
  options.connect_timeout = absl::Milliseconds(100);
  const int64_t begin = RealClock().NowNanos();
  const auto cache = ConnectCache("unix:" + path, RigSpec(), options);
  EXPECT_TRUE(absl::IsDeadlineExceeded(cache.status())) << cache.status();
  EXPECT_LT(RealClock().NowNanos() - begin, 10'000'000'000);
}

TEST(BadDaemon, NobodyThereIsOneClearLine) {
  TestFolder folder;
  const auto cache = ConnectCache("unix:" + folder / "none.sock", RigSpec(), PatientOptions());
  EXPECT_TRUE(absl::IsUnavailable(cache.status())) << cache.status();
  EXPECT_NE(std::string(cache.status().message()).find("none.sock"), std::string::npos);
  for (const char* target : {"", "nonsense"}) {
    EXPECT_TRUE(absl::IsInvalidArgument(ConnectCache(target, RigSpec()).status()));
  }
}

// Streams by script, which no honest service sends.
class ScriptedService final
    : public v1::Cache::WithRawCallbackMethod_CommitStream<v1::Cache::Service> {
 public:
  std::vector<v1::FetchChunk> chunks;
  std::string committed;  // the answer to a commit, whatever it is
  std::promise<void> stop;

  grpc::Status Session(grpc::ServerContext*, const v1::SessionRequest*,
                       grpc::ServerWriter<v1::SessionEvent>* writer) override {
    v1::SessionEvent event;
    v1::Registration* registration = event.mutable_registration();
    registration->set_protocol_version(kProtocolVersion);
    registration->set_layout_version(kLayoutVersion);
    registration->set_token(std::string(kTokenBytes, 't'));
    registration->set_root(std::string(Digest::kBytes, 'r'));
    registration->set_policy("full");
    writer->Write(event);
    stopped_.wait();
    return grpc::Status::OK;
  }
  grpc::Status FetchStream(grpc::ServerContext*, const v1::FetchRequest*,
                           grpc::ServerWriter<v1::FetchChunk>* writer) override {
    for (const v1::FetchChunk& chunk : chunks) writer->Write(chunk);
    return grpc::Status::OK;
  }
  grpc::ServerReadReactor<grpc::ByteBuffer>* CommitStream(grpc::CallbackServerContext*,
                                                          grpc::ByteBuffer* answer) override {
    struct ReadAll final : grpc::ServerReadReactor<grpc::ByteBuffer> {
      ReadAll() { StartRead(&chunk); }
      void OnReadDone(bool ok) override { ok ? StartRead(&chunk) : Finish(grpc::Status::OK); }
      void OnDone() override { delete this; }
      grpc::ByteBuffer chunk;
    };
    const grpc::Slice bytes(committed);
    *answer = grpc::ByteBuffer(&bytes, 1);
    return new ReadAll;
  }

 private:
  const std::shared_future<void> stopped_ = stop.get_future().share();
};

v1::FetchChunk HeadOfOneRow() {
  v1::FetchChunk chunk;
  v1::Extent* row = chunk.mutable_head()->add_rows();
  row->set_payload_bytes(2148);
  row->add_part_xxh3(1);
  row->add_part_xxh3(2);
  return chunk;
}

v1::FetchChunk Data(size_t bytes) {
  v1::FetchChunk chunk;
  chunk.set_data(std::string(bytes, 'd'));
  return chunk;
}

// The service, and a client of it.
struct ScriptedDaemon {
  ScriptedDaemon() {
    grpc::ServerBuilder builder;
    const std::string target = "unix:" + folder / "s";
    builder.AddListeningPort(target, grpc::InsecureServerCredentials());
    builder.RegisterService(&service);
    server = builder.BuildAndStart();
    auto connected = ConnectCache(target, RigSpec(), PatientOptions());
    EXPECT_TRUE(connected.ok()) << connected.status();
    cache = *std::move(connected);
  }
  ~ScriptedDaemon() {
    service.stop.set_value();
    cache.reset();
    server->Shutdown();
  }
  TestFolder folder;
  ScriptedService service;
  std::unique_ptr<grpc::Server> server;
  std::unique_ptr<CacheApi> cache;
};

TEST(BadDaemon, StreamsThatDoNotFit) {
  const std::vector<std::pair<bool, std::vector<v1::FetchChunk>>> scripts = {
      {true, {HeadOfOneRow(), Data(2000), Data(148)}},
      {false, {}},
      {false, {Data(10)}},
      {false, {HeadOfOneRow()}},
      {false, {HeadOfOneRow(), Data(2147)}},
      {false, {HeadOfOneRow(), Data(2149)}},
      {false, {HeadOfOneRow(), Data(2148), Data(1)}},
      {false, {HeadOfOneRow(), Data(0)}},
      {false, {HeadOfOneRow(), HeadOfOneRow()}},
      {false, {HeadOfOneRow(), Data(kStreamSliceBytes + 1)}},
  };
  for (size_t i = 0; i < scripts.size(); ++i) {
    SCOPED_TRACE(i);
    ScriptedDaemon daemon;
    daemon.service.chunks = scripts[i].second;
    const Digest digest;
    const auto prefix = daemon.cache->Fetch({.chain = {&digest, 1}});
    EXPECT_EQ(prefix.ok(), scripts[i].first) << prefix.status();
    if (!prefix.ok()) {
      EXPECT_TRUE(absl::IsUnavailable(prefix.status())) << prefix.status();
    }
  }
}

// gRPC's own client ends the process here.
TEST(BadDaemon, ACommitsAnswerThatDoesNotParse) {
  ScriptedDaemon daemon;
  const auto staging = *daemon.cache->Stage(10);
  const CommitItem item{1, staging.get(), {{10, 1}}};
  v1::CommitResponse honest;
  honest.add_statuses();
  for (const std::string& answer : {honest.SerializeAsString(), std::string(64, '\xff')}) {
    daemon.service.committed = answer;
    const auto committed = daemon.cache->Commit({&item, 1}, false);
    EXPECT_EQ(committed.ok(), answer[0] != '\xff') << committed.status();
    if (committed.ok()) continue;
    EXPECT_TRUE(absl::IsUnavailable(committed.status())) << committed.status();
    EXPECT_NE(std::string(committed.status().message()).find("wrong"), std::string::npos);
  }
  EXPECT_TRUE(absl::IsUnavailable(daemon.cache->Match({}).status()));
}

}  // namespace
}  // namespace cairn::cache
