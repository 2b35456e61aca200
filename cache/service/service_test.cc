// Goal: what goes in through the wire comes out of it, bit for bit, mapped on one host and streamed
// to others; and whoever vanishes leaves nothing behind. Method: real core, real sockets, one
// process.
#include <fstream>
#include <future>

#include "cache/service/service_rig.h"
#include "store/base/thread.h"

namespace cairn::cache {
namespace {

// The protection of the mapping that an address lies in, as the kernel has it: "r--s".
std::string ProtectionOf(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    const size_t dash = line.find('-'), space = line.find(' ');
    const uint64_t begin = std::stoull(line.substr(0, dash), nullptr, 16);
    const uint64_t end = std::stoull(line.substr(dash + 1, space - dash - 1), nullptr, 16);
    if (at >= begin && at < end) return line.substr(space + 1, 4);
  }
  return "not mapped";
}

TEST(Service, MappedFetchReadsTheArenaInPlace) {
  ServiceRig rig;
  const auto cache = rig.Connect(rig.unix_target());
  EXPECT_TRUE(cache->registration().mapped);
  const auto chain = ChainOf(*cache, 3);
  PutAll(*cache, chain);

  const auto match = cache->Match(chain);
  ASSERT_TRUE(match.ok()) << match.status();
  EXPECT_EQ(match->rows_blocks, 3u);
  EXPECT_EQ(match->rows_host_blocks, 3u);
  ASSERT_EQ(match->checkpoints.size(), 1u);
  EXPECT_EQ(match->checkpoints[0].blocks, 3u);
  EXPECT_EQ(match->checkpoints[0].tier, Tier::kHost);

  const auto prefix = cache->Fetch({.chain = chain});
  ASSERT_TRUE(prefix.ok()) << prefix.status();
  ExpectPrefix(**prefix, chain);
  EXPECT_EQ((*prefix)->copied_bytes, 0u);
  EXPECT_EQ((*prefix)->disk_bytes, 0u);
  EXPECT_GT((*prefix)->host_bytes, 0u);
  EXPECT_EQ(ProtectionOf((*prefix)->rows[0].payload.data()), "r--s");
}

TEST(Service, AMappedHitIsOneCall) {
  ServiceRig rig;
  const auto cache = rig.Connect(rig.unix_target());
  const auto chain = ChainOf(*cache, 5);
  PutAll(*cache, std::span(chain).first(3));
  MatchResult match = *cache->Match(chain, {.lease_host = true});
  EXPECT_EQ(match.rows_blocks, 3u);
  ASSERT_NE(match.leased, nullptr);
  ExpectPrefix(*match.leased, std::span(chain).first(3));
  EXPECT_EQ(match.leased->copied_bytes, 0u);
  EXPECT_EQ(match.leased->host_bytes, 3 * 2148u + 5120u);
  EXPECT_EQ(ProtectionOf(match.leased->rows[0].payload.data()), "r--s");
  EXPECT_EQ(rig.core.Stat("fetch_calls"), 0u);
  EXPECT_EQ(rig.core.Stat("open_leases"), 1u);
  match.leased.reset();
  EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 0; }));
}

TEST(Service, NothingIsLeasedUnlessAskedForAndMapped) {
  ServiceRig rig;
  const auto cache = rig.Connect(rig.unix_target());
  const auto chain = ChainOf(*cache, 3);
  PutAll(*cache, chain);
  EXPECT_EQ(cache->Match(chain)->leased, nullptr);
  RemoteCacheOptions unmapped = PatientOptions();
  unmapped.map = false;
  EXPECT_EQ(rig.Connect(rig.tcp_target())->Match(chain, {.lease_host = true})->leased, nullptr);
  EXPECT_EQ(rig.Connect(rig.unix_target(), unmapped)->Match(chain, {.lease_host = true})->leased,
            nullptr);
  EXPECT_EQ(rig.core.Stat("open_leases"), 0u);
}

TEST(Service, AClientWithoutAThreadIsRefusedAndAServerWithoutOneEnds) {
  ServiceRig rig;
  {
    const NoThreads none;
    const auto refused = ConnectCache(rig.unix_target(), RigSpec(""), PatientOptions());
    EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  }
  const auto cache = rig.Connect(rig.unix_target());
  PutAll(*cache, ChainOf(*cache, 3));
  const NoThreads none;
  rig.server.reset();
  EXPECT_FALSE(cache->Match(ChainOf(*cache, 3)).ok());
}

TEST(Service, StreamedFetchGivesTheSameBytes) {
  ServiceRig rig;
  const auto writer = rig.Connect(rig.unix_target());
  const auto chain = ChainOf(*writer, 3);
  PutAll(*writer, chain);
  RemoteCacheOptions unmapped = PatientOptions();
  unmapped.map = false;
  const auto over_tcp = rig.Connect(rig.tcp_target());
  const auto over_unix = rig.Connect(rig.unix_target(), unmapped);
  RemoteCacheOptions without_bulk = PatientOptions();
  without_bulk.bulk = false;
  const auto by_stream = rig.Connect(rig.tcp_target(), without_bulk);
  for (const auto& cache : {over_tcp.get(), over_unix.get(), by_stream.get()}) {
    EXPECT_FALSE(cache->registration().mapped);
    const auto prefix = cache->Fetch({.chain = chain});
    ASSERT_TRUE(prefix.ok()) << prefix.status();
    ExpectPrefix(**prefix, chain);
    EXPECT_EQ((*prefix)->copied_bytes, 3 * 2148u + 5120u);
    EXPECT_TRUE((*prefix)->verified);
  }
  // The client has all bytes before the server's thread has counted them.
  // It is in two stripes.
  EXPECT_TRUE(Eventually([&] { return rig.server->state().counters.bulk_transfers == 2; }));
  EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 0; }));
}

TEST(Service, StreamedCommitIsReadMapped) {
  ServiceRig rig;
  const auto writer = rig.Connect(rig.tcp_target());
  const auto chain = ChainOf(*writer, 3);
  PutAll(*writer, chain);
  const auto reader = rig.Connect(rig.unix_target());
  const auto prefix = reader->Fetch({.chain = chain});
  ASSERT_TRUE(prefix.ok()) << prefix.status();
  ExpectPrefix(**prefix, chain);
}

TEST(Service, AMissIsAValue) {
  ServiceRig rig;
  for (const std::string& target : {rig.unix_target(), rig.tcp_target()}) {
    const auto cache = rig.Connect(target);
    const auto chain = ChainOf(*cache, 2);
    EXPECT_EQ(cache->Match(chain)->rows_blocks, 0u);
    EXPECT_EQ(cache->Match({})->rows_blocks, 0u);
    const auto prefix = cache->Fetch({.chain = chain});
    ASSERT_TRUE(prefix.ok()) << prefix.status();
    EXPECT_TRUE((*prefix)->rows.empty());
    EXPECT_FALSE((*prefix)->checkpoint.has_value());
  }
}

TEST(Service, EntriesOfManySlicesArriveWhole) {
  // Rows of 2.5 MiB: three slices each.
  NamespaceSpec spec = RigSpec();
  spec.layout.components[0] = {"big", LayoutScope::kPrefix, 1, 128, 20480, 0, "x"};
  ServiceRig rig({.host_units = 4096, .disk_bytes = 0});
  auto cache = ConnectCache(rig.tcp_target(), spec, PatientOptions());
  ASSERT_TRUE(cache.ok()) << cache.status();
  const auto chain = ChainOf(**cache, 1);
  const auto items = ItemsOf(**cache, chain);
  const auto reserved = *(*cache)->Reserve({items.data(), 1}, absl::ZeroDuration());
  auto staging = *(*cache)->Stage(128 * 20480 + 100);
  SeededRandom(3).Fill(staging->bytes);
  const std::span<const uint8_t> bytes = staging->bytes;
  const CommitItem item{reserved[0].reservation,
                        staging.get(),
                        {{128 * 20480, Checksum(bytes.first(128 * 20480))},
                         {100, Checksum(bytes.subspan(128 * 20480, 100))}}};
  const auto statuses = (*cache)->Commit({&item, 1}, false);
  ASSERT_TRUE(statuses.ok()) << statuses.status();
  ASSERT_TRUE((*statuses)[0].ok()) << (*statuses)[0];
  RemoteCacheOptions without_bulk = PatientOptions();
  without_bulk.bulk = false;
  auto by_stream = ConnectCache(rig.tcp_target(), spec, without_bulk);
  ASSERT_TRUE(by_stream.ok()) << by_stream.status();
  for (CacheApi* reader : {cache->get(), by_stream->get()}) {
    const auto prefix = reader->Fetch({.chain = chain, .checkpoint = false});
    ASSERT_TRUE(prefix.ok()) << prefix.status();
    ASSERT_EQ((*prefix)->rows.size(), 1u);
    EXPECT_TRUE((*prefix)->verified);
    EXPECT_TRUE(std::equal((*prefix)->rows[0].payload.begin(), (*prefix)->rows[0].payload.end(),
                           bytes.begin()));
  }
}

TEST(Service, AWrongChecksumIsRefusedAndTheOthersGoIn) {
  ServiceRig rig;
  for (const std::string& target : {rig.unix_target(), rig.tcp_target()}) {
    const auto cache = rig.Connect(target);
    const auto chain = ChainOf(*cache, 2, target.size() > 20 ? 1 : 2);
    const auto items = ItemsOf(*cache, chain);
    const auto reserved = *cache->Reserve(items, absl::ZeroDuration());
    std::vector<std::unique_ptr<StagingBuffer>> buffers;
    std::vector<CommitItem> commits;
    for (size_t i = 0; i < 2; ++i) {
      const auto payload = PayloadOf(items[i].key);
      buffers.push_back(*cache->Stage(payload.size()));
      std::copy(payload.begin(), payload.end(), buffers.back()->bytes.begin());
      commits.push_back(
          {reserved[i].reservation, buffers.back().get(), PartsOf(EntryKind::kRows, payload)});
    }
    buffers[1]->bytes[7] ^= 1;
    const auto statuses = cache->Commit(commits, false);
    ASSERT_TRUE(statuses.ok()) << statuses.status();
    EXPECT_TRUE((*statuses)[0].ok()) << (*statuses)[0];
    EXPECT_TRUE(absl::IsDataLoss((*statuses)[1])) << (*statuses)[1];
    EXPECT_EQ(cache->Match(chain)->rows_blocks, 1u);
  }
}

TEST(Service, CommitItemsAreCheckedBeforeTheyTravel) {
  ServiceRig rig;
  const auto cache = rig.Connect(rig.unix_target());
  auto staging = *cache->Stage(100);
  for (const CommitItem& item :
       {CommitItem{1, nullptr, {{10, 1}}}, CommitItem{1, staging.get(), {}},
        CommitItem{1, staging.get(), {{4097, 1}}}}) {
    EXPECT_TRUE(absl::IsInvalidArgument(cache->Commit({&item, 1}, false).status()));
  }
}

TEST(Service, DroppingAPrefixReleasesItsLease) {
  ServiceRig rig;
  const auto cache = rig.Connect(rig.unix_target());
  const auto chain = ChainOf(*cache, 2);
  PutAll(*cache, chain);
  auto prefix = *cache->Fetch({.chain = chain});
  EXPECT_EQ(rig.core.Stat("open_leases"), 1u);
  prefix.reset();
  EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 0; }));
}

TEST(Service, AVanishedClientFreesLeasesAndReservations) {
  ServiceRig rig;
  for (const std::string& target : {rig.unix_target(), rig.tcp_target()}) {
    auto first = rig.Connect(target);
    const auto chain = ChainOf(*first, 2, target.size() > 20 ? 1 : 2);
    PutAll(*first, chain);
    auto prefix = *first->Fetch({.chain = chain});
    const auto other = ChainOf(*first, 1, 77);
    const auto items = ItemsOf(*first, other);
    ASSERT_EQ((*first->Reserve(items, absl::ZeroDuration()))[0].state, ReserveState::kGo);

    const auto second = rig.Connect(target);
    ASSERT_EQ((*second->Reserve(items, absl::ZeroDuration()))[0].state, ReserveState::kWait);
    const uint64_t before = rig.core.waiter.waits();
    auto waiting =
        std::async(std::launch::async, [&] { return second->Reserve(items, absl::Seconds(30)); });
    rig.core.waiter.Await(before);
    first.reset();
    const auto granted = waiting.get();
    ASSERT_TRUE(granted.ok()) << granted.status();
    EXPECT_EQ((*granted)[0].state, ReserveState::kGo);
    std::vector<uint64_t> mine;
    for (const ReserveResult& result : *granted) mine.push_back(result.reservation);
    EXPECT_TRUE(second->Abort(mine).ok());
    EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_leases") == 0; }));
    ExpectPrefix(*prefix, chain);  // mapped or its own, the bytes stay readable
  }
}

TEST(Service, TheSecondAskerWaitsForTheFirstsCommit) {
  ServiceRig rig;
  const auto first = rig.Connect(rig.unix_target());
  const auto second = rig.Connect(rig.unix_target());
  const auto chain = ChainOf(*first, 1);
  const auto items = ItemsOf(*first, chain);
  const auto reserved = *first->Reserve({items.data(), 1}, absl::ZeroDuration());
  const uint64_t before = rig.core.waiter.waits();
  auto waiting = std::async(std::launch::async, [&] {
    return second->Reserve({items.data(), 1}, absl::Seconds(30));
  });
  rig.core.waiter.Await(before);
  const auto payload = PayloadOf(items[0].key);
  auto staging = *first->Stage(payload.size());
  std::copy(payload.begin(), payload.end(), staging->bytes.begin());
  const CommitItem item{reserved[0].reservation, staging.get(), PartsOf(EntryKind::kRows, payload)};
  ASSERT_TRUE((*first->Commit({&item, 1}, false))[0].ok());
  EXPECT_EQ((*waiting.get())[0].state, ReserveState::kExists);
}

TEST(Service, WaitersAndSilentSessionsStarveNobody) {
  ServiceRig rig;
  const auto holder = rig.Connect(rig.unix_target());
  const auto chain = ChainOf(*holder, 1);
  const auto items = ItemsOf(*holder, chain);
  const auto held = *holder->Reserve({items.data(), 1}, absl::ZeroDuration());
  constexpr int kWaiting = 24;  // more than quick and bulk threads together
  std::vector<std::unique_ptr<CacheApi>> caches;
  std::vector<std::future<ReserveState>> waiting;
  for (int i = 0; i < 8; ++i) caches.push_back(rig.Connect(rig.unix_target()));
  for (int i = 0; i < kWaiting; ++i) {
    CacheApi* cache = caches[static_cast<size_t>(i) % caches.size()].get();
    waiting.push_back(std::async(std::launch::async, [cache, &items] {
      const auto result = cache->Reserve({items.data(), 1}, absl::Seconds(50));
      return result.ok() ? (*result)[0].state : ReserveState::kWait;
    }));
  }
  for (int i = 0; i < 5; ++i) {
    EXPECT_TRUE(holder->Match(chain).ok());
    EXPECT_TRUE(holder->Fetch({.chain = chain}).ok());
  }
  // All of them end: each gets the reservation from the one before, whose session then ends.
  ASSERT_TRUE(holder->Abort(std::vector<uint64_t>{held[0].reservation}).ok());
  rig.server.reset();
  for (auto& one : waiting) one.wait();
}

TEST(Service, AGrantThatNobodyHearsIsTakenBack) {
  ServiceRig rig;
  const auto holder = rig.Connect(rig.unix_target());
  const auto items = ItemsOf(*holder, ChainOf(*holder, 1));
  const auto held = *holder->Reserve({items.data(), 1}, absl::ZeroDuration());
  RemoteCacheOptions hasty = PatientOptions();
  hasty.call_timeout = absl::Milliseconds(1);
  const auto impatient = rig.Connect(rig.unix_target(), hasty);
  const uint64_t before = rig.core.waiter.waits();
  auto waiting = std::async(std::launch::async, [&] {
    return impatient->Reserve({items.data(), 1}, absl::Milliseconds(200)).status();
  });
  rig.core.waiter.Await(before);
  // The rig's clock stands still, so the daemon goes on waiting when the caller has given up.
  EXPECT_TRUE(absl::IsDeadlineExceeded(waiting.get()));
  ASSERT_TRUE(holder->Abort(std::vector<uint64_t>{held[0].reservation}).ok());
  EXPECT_TRUE(Eventually([&] { return rig.server->state().counters.undone_calls == 1; }));
  EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_reservations") == 0; }));
}

TEST(Service, AnEndedDaemonIsNoticedAtOnceAndMappedBytesStay) {
  ServiceRig rig;
  const auto cache = rig.Connect(rig.unix_target());
  const auto chain = ChainOf(*cache, 2);
  PutAll(*cache, chain);
  const auto prefix = *cache->Fetch({.chain = chain});
  rig.server.reset();
  EXPECT_TRUE(Eventually([&] { return absl::IsUnavailable(cache->Stage(1).status()); }));
  EXPECT_TRUE(absl::IsUnavailable(cache->Match(chain).status()));
  EXPECT_TRUE(absl::IsUnavailable(cache->Fetch({.chain = chain}).status()));
  EXPECT_TRUE(absl::IsUnavailable(cache->Stats().status()));
  EXPECT_TRUE(absl::IsUnavailable(cache->Abort(std::vector<uint64_t>{1})));
  ExpectPrefix(*prefix, chain);
  rig.core.core.reset();
  rig.core.host.reset();
  ExpectPrefix(*prefix, chain);
}

TEST(Service, AStopWaitsForNoSilentSession) {
  ServiceRig rig;
  const auto mapped = rig.Connect(rig.unix_target());
  const auto streaming = rig.Connect(rig.tcp_target());
  const int64_t begin = RealClock().NowNanos();
  rig.server->Shutdown(absl::Seconds(60));
  EXPECT_LT(RealClock().NowNanos() - begin, 20'000'000'000);
  for (CacheApi* cache : {mapped.get(), streaming.get()}) {
    EXPECT_TRUE(Eventually([&] { return absl::IsUnavailable(cache->Stage(1).status()); }));
  }
  // All but the rig's own.
  EXPECT_TRUE(Eventually([&] { return rig.core.Stat("open_sessions") == 1; }));
}

TEST(Service, TenantsDoNotMeetAndUnknownOnesAreRefused) {
  ServiceRig rig;
  const auto a = rig.Connect(rig.unix_target(), PatientOptions(), "a");
  const auto b = rig.Connect(rig.unix_target(), PatientOptions(), "b");
  const auto again = rig.Connect(rig.unix_target(), PatientOptions(), "a");
  EXPECT_NE(a->registration().root, b->registration().root);
  const auto chain = ChainOf(*a, 2);
  PutAll(*a, chain);
  EXPECT_EQ(again->Match(chain)->rows_blocks, 2u);
  EXPECT_EQ(b->Match(chain)->rows_blocks, 0u);
  EXPECT_TRUE((*b->Fetch({.chain = chain}))->rows.empty());
  const auto c = ConnectCache(rig.unix_target(), RigSpec("c"), PatientOptions());
  EXPECT_TRUE(absl::IsPermissionDenied(c.status())) << c.status();
}

TEST(Service, AnotherLayoutVersionIsOneClearLine) {
  ServiceRig rig;
  NamespaceSpec spec = RigSpec();
  spec.layout.version = kLayoutVersion + 1;
  const auto cache = ConnectCache(rig.unix_target(), spec, PatientOptions());
  EXPECT_TRUE(absl::IsFailedPrecondition(cache.status())) << cache.status();
  EXPECT_NE(std::string(cache.status().message()).find("layout version 2"), std::string::npos)
      << cache.status();
}

TEST(Service, FiguresCarryTheServicesOwn) {
  ServiceRig rig;
  const auto cache = rig.Connect(rig.unix_target());
  const auto counts = cache->Stats();
  ASSERT_TRUE(counts.ok()) << counts.status();
  uint64_t sessions = 0;
  for (const NamedCount& count : *counts) {
    if (count.name == "service_sessions") sessions = count.value;
  }
  EXPECT_EQ(sessions, 1u);
}

}  // namespace
}  // namespace cairn::cache
