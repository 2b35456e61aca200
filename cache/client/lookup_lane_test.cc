// Goal: a look-up gives its own answer or none: not one that was given up, not nonsense, and never
// later than its deadline. Method: the daemon's end in the test's hand.
#include "cache/client/lookup_lane.h"

#include <cstring>
#include <thread>

#include "cache/client/attach_protocol.h"
#include "gtest/gtest.h"
#include "store/base/clock.h"

namespace cairn::cache {
namespace {

constexpr absl::Duration kPatience = absl::Seconds(20);

class LookupLaneTest : public testing::Test {
 protected:
  LookupLaneTest() {
    const auto listener = *sockets_.Listen("/s");
    lane_ = std::make_unique<LookupLane>(*sockets_.Connect("/s", kPatience));
    daemon_ = *listener->Accept();
  }
  std::vector<uint8_t> Answer(uint32_t number, uint32_t code, const std::string& body) {
    const LookupAnswer header{.number = number, .code = code};
    std::vector<uint8_t> message(sizeof(header) + body.size());
    std::memcpy(message.data(), &header, sizeof(header));
    std::memcpy(message.data() + sizeof(header), body.data(), body.size());
    return message;
  }
  void Send(const std::vector<uint8_t>& message) {
    ASSERT_TRUE(daemon_->Send(message, -1, kPatience).ok());
  }
  std::string Found(uint32_t blocks) {
    v1::MatchResponse response;
    response.set_rows_blocks(blocks);
    return response.SerializeAsString();
  }
  std::optional<absl::Status> Ask(absl::Duration timeout = kPatience) {
    answer_.Clear();
    return lane_->Match(chain_, 77, &answer_, timeout);
  }

  store::MemorySockets sockets_;
  std::unique_ptr<LookupLane> lane_;
  std::unique_ptr<store::Connection> daemon_;
  const std::vector<Digest> chain_ =
      std::vector<Digest>(3, *Digest::FromBytes(std::string(32, 'd')));
  v1::MatchResponse answer_;
};

TEST_F(LookupLaneTest, TheChainAndTheLeaseGoAsTheyAre) {
  Send(Answer(1, 0, Found(2)));
  ASSERT_EQ(Ask(), absl::OkStatus());
  EXPECT_EQ(answer_.rows_blocks(), 2u);
  const auto sent = daemon_->Receive(store::kSocketMessageBytesMax, kPatience);
  ASSERT_TRUE(sent.ok()) << sent.status();
  LookupRequest request;
  ASSERT_EQ(sent->bytes.size(), sizeof(request) + 3 * Digest::kBytes);
  std::memcpy(&request, sent->bytes.data(), sizeof(request));
  EXPECT_EQ(request.number, 1u);
  EXPECT_EQ(request.lease_host, 1u);
  EXPECT_EQ(request.lease, 77u);
  EXPECT_EQ(std::memcmp(sent->bytes.data() + sizeof(request), chain_.data(), 3 * Digest::kBytes),
            0);
}

TEST_F(LookupLaneTest, AnAnswerThatWasGivenUpIsNotTheNextOnes) {
  EXPECT_TRUE(absl::IsDeadlineExceeded(*Ask(absl::Milliseconds(1))));
  Send(Answer(1, 0, Found(1)));
  Send(Answer(2, 0, Found(2)));
  ASSERT_EQ(Ask(), absl::OkStatus());
  EXPECT_EQ(answer_.rows_blocks(), 2u);
}

// Later than the asker stays awake for it.
TEST_F(LookupLaneTest, ALateAnswerIsWaitedFor) {
  std::thread daemon([this] {
    EXPECT_TRUE(daemon_->Receive(store::kSocketMessageBytesMax, kPatience).ok());
    const int64_t late = RealClock().NowNanos() + 5'000'000;
    while (RealClock().NowNanos() < late) std::this_thread::yield();
    Send(Answer(1, 0, Found(2)));
  });
  EXPECT_EQ(Ask(), absl::OkStatus());
  EXPECT_EQ(answer_.rows_blocks(), 2u);
  daemon.join();
}

TEST_F(LookupLaneTest, TheDaemonsErrorsAreItsOwn) {
  Send(Answer(1, static_cast<uint32_t>(absl::StatusCode::kAborted), "the session is over"));
  EXPECT_EQ(*Ask(), absl::AbortedError("the session is over"));
}

TEST_F(LookupLaneTest, NonsenseIsNotBelieved) {
  for (const std::vector<uint8_t>& message :
       {std::vector<uint8_t>(7), Answer(9, 0, Found(1)), Answer(3, 0, "\x0f no message")}) {
    Send(message);
    const std::optional<absl::Status> status = Ask();
    ASSERT_TRUE(status.has_value());
    EXPECT_TRUE(absl::IsUnavailable(*status)) << *status;
    EXPECT_EQ(status->message().find("the daemon's answer is wrong"), 0u) << *status;
  }
}

TEST_F(LookupLaneTest, AClosedLaneIsNoLane) {
  daemon_->Shutdown();
  EXPECT_FALSE(Ask().has_value());
  EXPECT_FALSE(Ask().has_value());
}

TEST_F(LookupLaneTest, OneThatClosesUnderAQuestionSaysSo) {
  std::thread daemon([this] {
    EXPECT_TRUE(daemon_->Receive(store::kSocketMessageBytesMax, kPatience).ok());
    daemon_->Shutdown();
  });
  const std::optional<absl::Status> status = Ask();
  daemon.join();
  ASSERT_TRUE(status.has_value());
  EXPECT_TRUE(absl::IsUnavailable(*status)) << *status;
  EXPECT_FALSE(Ask().has_value());
}

TEST_F(LookupLaneTest, AChainTooLongForItIsNotSent) {
  const std::vector<Digest> chain(kLookupBlocksMax + 1);
  EXPECT_FALSE(lane_->Match(chain, std::nullopt, &answer_, kPatience).has_value());
  EXPECT_TRUE(absl::IsDeadlineExceeded(daemon_->Receive(1, absl::ZeroDuration()).status()));
}

TEST_F(LookupLaneTest, WhoFindsItInUseGoesAnotherWay) {
  std::thread first([this] { EXPECT_EQ(Ask(), absl::OkStatus()); });
  ASSERT_TRUE(daemon_->Receive(store::kSocketMessageBytesMax, kPatience).ok());
  v1::MatchResponse other;
  EXPECT_FALSE(lane_->Match(chain_, std::nullopt, &other, kPatience).has_value());
  Send(Answer(1, 0, Found(1)));
  first.join();
}

}  // namespace
}  // namespace cairn::cache
