// service_rig.h: a whole daemon in the test's process: a real core (core_rig.h) behind real sockets
// in a folder of its own.
//
// Threads:   the test's. Errors: as expectations.
#ifndef CAIRN_CACHE_SERVICE_SERVICE_RIG_H_
#define CAIRN_CACHE_SERVICE_SERVICE_RIG_H_

#include <grpcpp/grpcpp.h>
#include <stdlib.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "cache/client/remote_cache.h"
#include "cache/core/core_rig.h"
#include "cache/service/cache_server.h"
#include "gtest/gtest.h"
#include "store/base/random.h"
#include "store/device/socket.h"

namespace cairn::cache {

// A folder that goes with the test. Short: a socket's path has at most 107 bytes.
class TestFolder {
 public:
  TestFolder() {
    std::string name = "/tmp/cairn-test-XXXXXX";
    EXPECT_NE(::mkdtemp(name.data()), nullptr);
    path_ = name;
  }
  ~TestFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

// Generous: under a sanitizer on a busy machine a call takes long, and no test here is about speed.
inline RemoteCacheOptions PatientOptions() {
  RemoteCacheOptions options;
  options.connect_timeout = absl::Seconds(20);
  options.call_timeout = absl::Seconds(20);
  options.stall_timeout = absl::Seconds(20);
  return options;
}

// Waits for what happens behind the caller's back; false after 20 s.
template <typename Condition>
bool Eventually(Condition condition) {
  const int64_t end = RealClock().NowNanos() + 20'000'000'000;
  while (!condition()) {
    if (RealClock().NowNanos() > end) return false;
    std::this_thread::yield();
  }
  return true;
}

// Of a client's counts; 0: none of that name.
inline uint64_t StatOf(CacheApi& cache, const std::string& name) {
  const auto counts = cache.Stats();
  EXPECT_TRUE(counts.ok()) << counts.status();
  for (const NamedCount& count : *counts) {
    if (count.name == name) return count.value;
  }
  return 0;
}

inline absl::StatusOr<std::unique_ptr<CacheServer>> StartServer(CacheCore& core, Clock& clock,
                                                                const TestFolder& folder,
                                                                const std::string& listen = "") {
  return CacheServer::Start({.socket = folder / "cairn.sock",
                             .listen = listen,
                             .admin_socket = folder / "admin.sock",
                             .bulk_listen = listen,
                             .version = "test",
                             .bulk_stripe_bytes_min = 1000},  // entries here are small
                            core, clock, SystemRandom(), store::UnixSockets());
}

struct ServiceRig {
  explicit ServiceRig(const CoreRig::Sizes& sizes = {.host_units = 256, .disk_bytes = 0})
      : core(sizes) {
    auto started = StartServer(*core.core, core.clock, folder, "127.0.0.1:0");
    EXPECT_TRUE(started.ok()) << started.status();
    server = std::move(*started);
  }
  std::string unix_target() const { return "unix:" + folder / "cairn.sock"; }
  std::string tcp_target() const { return absl::StrCat("127.0.0.1:", server->tcp_port()); }

  std::unique_ptr<CacheApi> Connect(const std::string& target,
                                    RemoteCacheOptions options = PatientOptions(),
                                    const std::string& tenant = "") const {
    auto cache = ConnectCache(target, RigSpec(tenant), options);
    EXPECT_TRUE(cache.ok()) << cache.status();
    return cache.ok() ? std::move(*cache) : nullptr;
  }

  TestFolder folder;
  CoreRig core;
  std::unique_ptr<CacheServer> server;
};

// No session is open but the rig's own, and no fetch or commit of one that was is still at work.
// Only then must all that clients held be free: a commit that copies while its session ends goes
// on, and its reservations end with it.
inline bool ClientsAreGone(CoreRig& core, CacheServer& server) {
  return core.Stat("open_sessions") == 1 &&
         server.state().work.AwaitNone(std::chrono::milliseconds(0));
}

inline std::vector<Digest> ChainOf(const CacheApi& cache, size_t blocks, int32_t salt = 0) {
  std::vector<int32_t> tokens(blocks * kBlockTokens);
  for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = static_cast<int32_t>(i) + salt;
  return DigestChain(cache.registration().root, tokens);
}

// All rows of the chain and the checkpoint at its end.
inline std::vector<ReserveItem> ItemsOf(const CacheApi& cache, std::span<const Digest> chain) {
  std::vector<ReserveItem> items;
  for (size_t i = 0; i < chain.size(); ++i) {
    items.push_back({{chain[i], EntryKind::kRows},
                     i == 0 ? cache.registration().root : chain[i - 1],
                     static_cast<uint32_t>(i)});
  }
  items.push_back(items.back());
  items.back().key.kind = EntryKind::kCheckpoint;
  return items;
}

// Reserves, stages and commits all of it.
inline void PutAll(CacheApi& cache, std::span<const Digest> chain, bool durable = false) {
  const std::vector<ReserveItem> items = ItemsOf(cache, chain);
  const auto reserved = cache.Reserve(items, absl::ZeroDuration());
  ASSERT_TRUE(reserved.ok()) << reserved.status();
  std::vector<std::unique_ptr<StagingBuffer>> buffers;
  std::vector<CommitItem> commits;
  for (size_t i = 0; i < items.size(); ++i) {
    ASSERT_EQ((*reserved)[i].state, ReserveState::kGo);
    const std::vector<uint8_t> payload = PayloadOf(items[i].key);
    auto staging = cache.Stage(payload.size());
    ASSERT_TRUE(staging.ok()) << staging.status();
    std::copy(payload.begin(), payload.end(), (*staging)->bytes.begin());
    commits.push_back(
        {(*reserved)[i].reservation, staging->get(), PartsOf(items[i].key.kind, payload)});
    buffers.push_back(std::move(*staging));
  }
  const auto statuses = cache.Commit(commits, durable);
  ASSERT_TRUE(statuses.ok()) << statuses.status();
  ASSERT_EQ(statuses->size(), items.size());
  for (const absl::Status& status : *statuses) EXPECT_TRUE(status.ok()) << status;
}

inline void ExpectView(const EntryView& view, const EntryKey& key) {
  EXPECT_EQ(view.key, key);
  const std::vector<uint8_t> expected = PayloadOf(key);
  ASSERT_EQ(view.payload.size(), expected.size());
  EXPECT_TRUE(std::equal(expected.begin(), expected.end(), view.payload.begin()));
  const auto parts = view.Parts();
  ASSERT_TRUE(parts.ok()) << parts.status();
  EXPECT_EQ(*parts, PartsOf(key.kind, expected));
}

inline void ExpectPrefix(const FetchedPrefix& prefix, std::span<const Digest> chain) {
  ASSERT_EQ(prefix.rows.size(), chain.size());
  for (size_t i = 0; i < chain.size(); ++i) {
    ExpectView(prefix.rows[i], {chain[i], EntryKind::kRows});
  }
  ASSERT_TRUE(prefix.checkpoint.has_value());
  ExpectView(*prefix.checkpoint, {chain.back(), EntryKind::kCheckpoint});
}

}  // namespace cairn::cache

#endif  // CAIRN_CACHE_SERVICE_SERVICE_RIG_H_
