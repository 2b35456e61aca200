// Goal: operators see and steer what is stored, by whole digests or unique beginnings, and nothing
// is evicted by a slip.
#include "absl/strings/escaping.h"
#include "cache/client/protocol.h"
#include "cache/service/service_rig.h"
#include "cairn/v1/admin.grpc.pb.h"

namespace cairn::cache {
namespace {

class Admin : public testing::Test {
 protected:
  Admin()
      : cache_(rig_.Connect(rig_.unix_target())),
        chain_(ChainOf(*cache_, 3)),
        stub_(v1::Admin::NewStub(grpc::CreateChannel("unix:" + rig_.folder / "admin.sock",
                                                     grpc::InsecureChannelCredentials()))) {
    PutAll(*cache_, chain_);
  }
  template <typename Method, typename Request, typename Response>
  grpc::StatusCode Call(Method method, const Request& request, Response* out) {
    grpc::ClientContext context;
    return (stub_.get()->*method)(&context, request, out).error_code();
  }

  std::pair<grpc::Status, v1::VerifyEvent> Verify(const v1::VerifyRequest& request) {
    grpc::ClientContext context;
    const auto reader = stub_->Verify(&context, request);
    v1::VerifyEvent event, last;
    while (reader->Read(&event)) last = event;
    return {reader->Finish(), last};
  }

  ServiceRig rig_{{.host_units = 256, .disk_bytes = 8 << 20}};
  std::unique_ptr<CacheApi> cache_;
  const std::vector<Digest> chain_;
  std::unique_ptr<v1::Admin::Stub> stub_;
};

TEST_F(Admin, VersionAndStats) {
  v1::VersionResponse version;
  ASSERT_EQ(Call(&v1::Admin::Stub::Version, v1::VersionRequest(), &version), grpc::OK);
  EXPECT_EQ(version.daemon_version(), "test");
  EXPECT_EQ(version.protocol_version(), kProtocolVersion);
  v1::StatsResponse stats;
  ASSERT_EQ(Call(&v1::Admin::Stub::Stats, v1::AdminStatsRequest(), &stats), grpc::OK);
  EXPECT_GT(stats.counts_size(), 10);
}

TEST_F(Admin, ListByFilterAndByABeginning) {
  v1::ListRequest request;
  v1::ListResponse out;
  ASSERT_EQ(Call(&v1::Admin::Stub::List, request, &out), grpc::OK);
  ASSERT_EQ(out.prefixes_size(), 3);
  EXPECT_EQ(out.prefixes(0).digest(), EncodeDigest(chain_[0]));
  EXPECT_TRUE(out.prefixes(2).checkpoint_host());
  EXPECT_EQ(out.prefixes(2).bytes(), 2148u + 5120u);

  request.mutable_filter()->set_prefix(EncodeDigest(chain_[1]).substr(0, 5));
  ASSERT_EQ(Call(&v1::Admin::Stub::List, request, &out), grpc::OK);
  EXPECT_EQ(out.prefixes_size(), 2);
  request.set_leaves_only(true);
  ASSERT_EQ(Call(&v1::Admin::Stub::List, request, &out), grpc::OK);
  EXPECT_EQ(out.prefixes_size(), 1);
  request.mutable_filter()->set_prefix("none");
  EXPECT_EQ(Call(&v1::Admin::Stub::List, request, &out), grpc::NOT_FOUND);
  request.mutable_filter()->set_prefix("abc");
  EXPECT_EQ(Call(&v1::Admin::Stub::List, request, &out), grpc::INVALID_ARGUMENT);
  request.clear_filter();
  request.mutable_filter()->set_namespace_root(std::string(32, 'x'));
  ASSERT_EQ(Call(&v1::Admin::Stub::List, request, &out), grpc::OK);
  EXPECT_EQ(out.prefixes_size(), 0);
}

TEST_F(Admin, NothingIsEvictedByASlip) {
  v1::EvictRequest request;
  v1::EvictResponse out;
  EXPECT_EQ(Call(&v1::Admin::Stub::Evict, request, &out), grpc::INVALID_ARGUMENT);
  request.set_all(true);
  request.mutable_filter()->set_prefix(EncodeDigest(chain_[0]));
  EXPECT_EQ(Call(&v1::Admin::Stub::Evict, request, &out), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(cache_->Match(chain_)->rows_blocks, 3u);
}

TEST_F(Admin, EvictAPrefixKeepsWhatIsBeforeIt) {
  v1::EvictRequest request;
  request.mutable_filter()->set_prefix(EncodeDigest(chain_[1]));
  v1::EvictResponse out;
  ASSERT_EQ(Call(&v1::Admin::Stub::Evict, request, &out), grpc::OK);
  EXPECT_EQ(out.evicted_entries(), 3u);
  EXPECT_EQ(cache_->Match(chain_)->rows_blocks, 1u);
}

TEST_F(Admin, PinnedAndLeasedEntriesStayAndAreCounted) {
  v1::PinRequest pin;
  pin.set_digest(EncodeDigest(chain_[0]).substr(0, 4));
  v1::PinResponse pinned;
  ASSERT_EQ(Call(&v1::Admin::Stub::Pin, pin, &pinned), grpc::OK);
  EXPECT_EQ(pinned.digest(), EncodeDigest(chain_[0]));
  v1::EvictRequest all;
  all.set_all(true);
  v1::EvictResponse out;
  ASSERT_EQ(Call(&v1::Admin::Stub::Evict, all, &out), grpc::OK);
  EXPECT_EQ(out.evicted_entries(), 3u);
  EXPECT_EQ(out.kept_entries(), 1u);
  ASSERT_EQ(Call(&v1::Admin::Stub::Unpin, pin, &pinned), grpc::OK);
  ASSERT_EQ(Call(&v1::Admin::Stub::Evict, all, &out), grpc::OK);
  EXPECT_EQ(cache_->Match(chain_)->rows_blocks, 0u);
  EXPECT_EQ(Call(&v1::Admin::Stub::Pin, pin, &pinned), grpc::NOT_FOUND);
}

TEST_F(Admin, VerifyCountsAndEndsWithDone) {
  grpc::ClientContext context;
  const auto reader = stub_->Verify(&context, v1::VerifyRequest());
  v1::VerifyEvent event, last;
  while (reader->Read(&event)) last = event;
  EXPECT_TRUE(reader->Finish().ok());
  EXPECT_TRUE(last.done());
  EXPECT_EQ(last.entries(), 4u);
  EXPECT_EQ(last.damaged(), 0u);
}

TEST_F(Admin, VerifyTellsWhatIsDamagedWhereAndWhatIsHealed) {
  ASSERT_TRUE(rig_.core.core->Flush(absl::Seconds(10)).ok());
  // Decay of host memory: the arena is the daemon's to write.
  const LeasedPrefix prefix = *rig_.core.core->Fetch(rig_.core.session, {.chain = chain_});
  ASSERT_EQ(prefix.rows.size(), 3u);
  *const_cast<uint8_t*>(prefix.rows[1].payload.data()) ^= 1;
  const v1::VerifyEvent last = Verify({}).second;
  EXPECT_TRUE(last.done());
  EXPECT_EQ(last.entries(), 4u);
  EXPECT_EQ(last.total_entries(), 4u);
  EXPECT_EQ(last.bytes(), last.total_bytes());
  EXPECT_EQ(last.damaged(), 1u);
  EXPECT_EQ(last.damaged_host(), 1u);
  EXPECT_EQ(last.damaged_disk(), 0u);
  EXPECT_EQ(last.healed(), 1u);
}

// At a rate at which it takes years, and never ends by itself: the clock stands still.
class SlowVerify : public Admin {
 protected:
  SlowVerify() {
    request_.set_bytes_per_second(1);
    reader_ = stub_->Verify(&context_, request_);
    v1::VerifyEvent event;
    EXPECT_TRUE(reader_->Read(&event));  // it has begun
    EXPECT_EQ(event.total_entries(), 4u);
  }
  v1::VerifyRequest request_;
  grpc::ClientContext context_;
  std::unique_ptr<grpc::ClientReader<v1::VerifyEvent>> reader_;
};

TEST_F(SlowVerify, AnotherOneIsRefusedAndItsCallersEndIsItsOwn) {
  const auto [status, event] = Verify({});
  EXPECT_EQ(status.error_code(), grpc::RESOURCE_EXHAUSTED);
  EXPECT_NE(status.error_message().find("another one is running"), std::string::npos);
  context_.TryCancel();
  EXPECT_EQ(reader_->Finish().error_code(), grpc::CANCELLED);
  EXPECT_TRUE(Eventually([this] {
    rig_.core.clock.Advance(absl::Seconds(1));
    return Verify({}).second.done();
  }));
}

TEST_F(SlowVerify, EndsWithTheDaemon) {
  std::thread stop([this] { rig_.server->Shutdown(absl::Hours(1)); });
  std::atomic<bool> over{false};
  std::thread time([&] {
    // Slowly: the pace must not let it come to its end.
    while (!over) rig_.core.clock.Advance(absl::Microseconds(10));
  });
  v1::VerifyEvent event;
  while (reader_->Read(&event)) EXPECT_FALSE(event.done());
  EXPECT_EQ(reader_->Finish().error_code(), grpc::UNAVAILABLE);
  stop.join();
  over = true;
  time.join();
}

TEST_F(Admin, FlushAndItsBound) {
  v1::FlushRequest request;
  v1::FlushResponse out;
  request.set_deadline_millis(kFlushMillisMax + 1);
  EXPECT_EQ(Call(&v1::Admin::Stub::Flush, request, &out), grpc::INVALID_ARGUMENT);
}

}  // namespace
}  // namespace cairn::cache
