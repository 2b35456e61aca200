// Goal: a call that may take long is waited for as long as the daemon lives, and ends soon after it
// does not. Method: a service that holds what it is told to hold.
#include <atomic>

#include "cache/client/protocol.h"
#include "cache/service/service_rig.h"

namespace cairn::cache {
namespace {

class StallingService final : public v1::Cache::Service {
 public:
  std::atomic<bool> hung{false};  // answers nothing small any more
  std::atomic<int> asked{0};      // signs of life
  int answer_after = INT32_MAX;   // a held call is answered when so many were asked
  bool begin_stream = false;      // and then stop in the middle

  grpc::Status Session(grpc::ServerContext* context, const v1::SessionRequest*,
                       grpc::ServerWriter<v1::SessionEvent>* writer) override {
    v1::SessionEvent event;
    v1::Registration* registration = event.mutable_registration();
    registration->set_protocol_version(kProtocolVersion);
    registration->set_layout_version(kLayoutVersion);
    registration->set_token(std::string(kTokenBytes, 't'));
    registration->set_root(std::string(Digest::kBytes, 'r'));
    registration->set_policy("full");
    writer->Write(event);
    Hold(context, INT32_MAX);
    return grpc::Status::OK;
  }
  grpc::Status Release(grpc::ServerContext* context, const v1::ReleaseRequest*,
                       v1::ReleaseResponse*) override {
    ++asked;
    if (hung) Hold(context, INT32_MAX);
    return grpc::Status::OK;
  }
  grpc::Status Reserve(grpc::ServerContext* context, const v1::ReserveRequest*,
                       v1::ReserveResponse* out) override {
    Hold(context, answer_after);
    out->add_results()->set_state(1);
    return grpc::Status::OK;
  }
  grpc::Status FetchStream(grpc::ServerContext* context, const v1::FetchRequest*,
                           grpc::ServerWriter<v1::FetchChunk>* writer) override {
    if (begin_stream) {
      v1::FetchChunk head;
      v1::Extent* row = head.mutable_head()->add_rows();
      row->set_payload_bytes(2148);
      row->add_part_xxh3(1);
      row->add_part_xxh3(2);
      writer->Write(head);
    }
    Hold(context, answer_after);
    return grpc::Status::OK;
  }

 private:
  void Hold(grpc::ServerContext* context, int until) const {
    while (!context->IsCancelled() && asked < until) std::this_thread::yield();
  }
};

class StalledDaemon : public testing::Test {
 protected:
  StalledDaemon() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort(target_, grpc::InsecureServerCredentials());
    builder.RegisterService(&service_);
    server_ = builder.BuildAndStart();
    Connect(absl::Seconds(20));
  }
  ~StalledDaemon() override {
    cache_.reset();
    server_->Shutdown();
  }
  void Connect(absl::Duration stall) {
    RemoteCacheOptions options = PatientOptions();
    options.call_timeout = absl::Milliseconds(1);
    options.stall_timeout = stall;
    auto cache = ConnectCache(target_, RigSpec(), options);
    ASSERT_TRUE(cache.ok()) << cache.status();
    cache_ = std::move(*cache);
  }
  absl::Status Wait() {
    const ReserveItem item;
    return cache_->Reserve({&item, 1}, kReserveWait).status();
  }
  absl::Status Fetch() {
    const Digest digest;
    return cache_->Fetch({.chain = {&digest, 1}, .deadline = absl::Minutes(10)}).status();
  }
  // It took nothing like its own deadline, the link has ended, and says why.
  void ExpectStalled(const absl::Status& status, const std::string& why) {
    EXPECT_TRUE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_NE(std::string(status.message()).find(why), std::string::npos) << status;
    EXPECT_TRUE(absl::IsDeadlineExceeded(cache_->Match({}).status()));
  }

  static constexpr absl::Duration kReserveWait = absl::Milliseconds(kReserveWaitMillisMax);
  static constexpr absl::Duration kStall = absl::Milliseconds(100);
  TestFolder folder_;
  const std::string target_ = "unix:" + folder_ / "s";
  StallingService service_;
  std::unique_ptr<grpc::Server> server_;
  std::unique_ptr<CacheApi> cache_;
};

TEST_F(StalledDaemon, ALongCallOfALivelyDaemonIsWaitedFor) {
  service_.answer_after = 20;
  EXPECT_TRUE(Wait().ok());
  EXPECT_GE(service_.asked, 20);
}

TEST_F(StalledDaemon, AStreamThatHasNotBegunIsWaitedFor) {
  service_.answer_after = 20;
  const absl::Status status = Fetch();  // it ends without a head, which is an error of its own
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_GE(service_.asked, 20);
}

TEST_F(StalledDaemon, AWaitEndsWhenTheDaemonShowsNoLife) {
  service_.hung = true;
  Connect(kStall);
  ExpectStalled(Wait(), "no sign of life");
}

TEST_F(StalledDaemon, AFetchEndsWhenTheDaemonShowsNoLife) {
  service_.hung = true;
  Connect(kStall);
  ExpectStalled(Fetch(), "no sign of life");
}

TEST_F(StalledDaemon, AStreamThatStopsEndsThoughTheDaemonLives) {
  service_.begin_stream = true;
  Connect(kStall);
  ExpectStalled(Fetch(), "stopped in the middle");
}

}  // namespace
}  // namespace cairn::cache
