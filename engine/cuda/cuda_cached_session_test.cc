// Goal: a slot restored from entries computes the bits of the one they were taken from, whatever it
// held before and however often the pinned memory is filled; and an entry that is not whole never
// counts. Method: entries of a cold run, damaged or not, into another engine's slot.
#include "engine/cuda/cuda_cached_session.h"

#include <gtest/gtest.h>

#include "engine/cuda/cuda_test_models.h"
#include "store/base/checksum.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using cache::EntryView;
using cache::LayoutScope;

constexpr int64_t kBlocks = 5;
constexpr size_t kPrefix = kBlocks * kBlockTokens;

class CudaCachedSessionTest : public CudaEngineTest {
 protected:
  static const CudaModel& model() { return *AllKinds().gpu; }
  static const KvLayout& Layout() {
    static const KvLayout layout = CudaKvLayout(model().config);
    return layout;
  }
  static CudaCachedSession Session(CudaTestEngine& engine, int64_t slot,
                                   int64_t staging_bytes = CudaCachedSession::kStagingBytes) {
    return {Layout(), *engine.sessions, slot, engine.forward->stream(), nullptr, staging_bytes};
  }

  // One prompt and what a cold run of it stores and gives.
  void SetUp() override {
    CudaEngineTest::SetUp();
    if (IsSkipped()) return;
    CudaTestEngine cold(model());
    cold.Run(1, Prefix(), 200);
    CudaCachedSession session = Session(cold, 1);
    ASSERT_EQ(session.position(), static_cast<int64_t>(kPrefix));
    for (int64_t block = 0; block < kBlocks; ++block) {
      rows_.push_back(Copy(session.ShareRows(block), Layout().rows_entry_bytes()));
    }
    checkpoint_ = Copy(session.ShareCheckpoint(), Layout().checkpoint_bytes());
    for (const std::vector<uint8_t>& rows : rows_) {
      views_.push_back(View(rows, LayoutScope::kPrefix));
    }
    checkpoint_view_ = View(checkpoint_, LayoutScope::kTrailing);
    want_ = cold.Run(1, Rest(), 600);
  }
  std::span<const int32_t> Prefix() const { return std::span(tokens_).first(kPrefix); }
  std::span<const int32_t> Rest() const { return std::span(tokens_).subspan(kPrefix); }
  StoredPrefix Stored() const { return {.rows = views_, .checkpoint = &checkpoint_view_}; }

  static std::vector<uint8_t> Copy(const absl::StatusOr<std::shared_ptr<const uint8_t>>& entry,
                                   int64_t bytes) {
    EXPECT_TRUE(entry.ok()) << entry.status();
    return {entry->get(), entry->get() + bytes};
  }
  static EntryView View(const std::vector<uint8_t>& bytes, LayoutScope scope) {
    EntryView view;
    view.payload = bytes;
    std::span<const uint8_t> rest = bytes;
    for (const uint32_t part : Layout().Descriptor({}).part_bytes(scope)) {
      view.parts.push_back({part, Checksum(rest.first(part))});
      rest = rest.subspan(part);
    }
    EXPECT_TRUE(rest.empty());
    return view;
  }

  const std::vector<int32_t> tokens_ = CudaTestTokens(700, 11);
  std::vector<std::vector<uint8_t>> rows_;
  std::vector<uint8_t> checkpoint_;
  std::vector<EntryView> views_;
  EntryView checkpoint_view_;
  std::vector<float> want_;
};

TEST_F(CudaCachedSessionTest, AGatherForAllEntriesOrOneForEachTheBitsAreTheSame) {
  for (const int64_t staging_bytes :
       {CudaCachedSession::kStagingBytes, int64_t{1}, Layout().checkpoint_bytes() + 1000}) {
    CudaTestEngine engine(model());
    engine.Run(2, CudaTestTokens(300, 12), 600);  // what the slot held before
    CudaCachedSession session = Session(engine, 2, staging_bytes);
    session.Clear();
    const absl::Status restored = session.Restore(Stored());
    ASSERT_TRUE(restored.ok()) << restored;
    EXPECT_EQ(session.position(), static_cast<int64_t>(kPrefix));
    EXPECT_EQ(session.replay(), nullptr);
    EXPECT_EQ(engine.Run(2, Rest(), 37), want_) << staging_bytes << " bytes";
  }
}

TEST_F(CudaCachedSessionTest, OneDamagedByteLeavesAFreshSession) {
  for (std::vector<uint8_t>* damaged : {&rows_[0], &rows_[kBlocks - 1], &checkpoint_}) {
    CudaTestEngine engine(model());
    CudaCachedSession session = Session(engine, 0, /*staging_bytes=*/1);
    uint8_t& byte = (*damaged)[damaged->size() / 2];
    byte ^= 0x10;
    EXPECT_TRUE(absl::IsDataLoss(session.Restore(Stored())));
    byte ^= 0x10;
    EXPECT_EQ(session.position(), 0);
    EXPECT_EQ(engine.Run(0, tokens_, 600), want_);
    session.Clear();
    ASSERT_TRUE(session.Restore(Stored()).ok()) << "another try";
    EXPECT_EQ(engine.Run(0, Rest(), 600), want_);
  }
}

}  // namespace
}  // namespace cairn::engine
