// Resuming on the GPU from entries: the same bits as going on.
#include "engine/cuda/cuda_transfer.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "engine/cuda/cuda_test_models.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using kernels::cuda::DeviceBuffer;
using kernels::cuda::SegmentCopy;

// Without a GPU.
TEST(CudaKvLayoutTest, ItsEntriesMeetNoOthers) {
  const Digest weights{};
  for (const int64_t mtp_layers : {0, 1}) {
    ModelConfig config = CudaTestConfig({0, 4, 128}, 1);
    config.mtp_layers = mtp_layers;
    if (mtp_layers > 0) config.compress_ratios.push_back(0);
    const KvLayout gpu = CudaKvLayout(config);
    const KvLayout cpu(config, Numerics::kFull);
    EXPECT_EQ(gpu.layers().size(), 3u);
    EXPECT_EQ(gpu.mtp_hidden().rows, 0);
    EXPECT_EQ(gpu.rows_entry_bytes(), cpu.rows_entry_bytes());
    EXPECT_NE(gpu.Descriptor(weights).numerics, cpu.Descriptor(weights).numerics);
    EXPECT_NE(gpu.Descriptor(weights).Identity(), cpu.Descriptor(weights).Identity());
    EXPECT_TRUE(gpu.Descriptor(weights).Validate().ok());
  }
}

class CudaTransferTest : public CudaEngineTest {
 protected:
  // Entries of the first `blocks` blocks, in GPU memory: rows entries, then the checkpoint.
  struct Entries {
    int64_t blocks;
    DeviceBuffer<uint8_t> bytes;
  };

  static void Copy(const KvLayout& layout, CudaTestEngine& engine, int64_t slot,
                   TransferDirection direction, const Entries& entries) {
    std::vector<SegmentCopy> copies;
    uint8_t* const checkpoint = entries.bytes.get() + entries.blocks * layout.rows_entry_bytes();
    for (int64_t layer = 0; layer < engine.sessions->layers(); ++layer) {
      for (int64_t block = 0; block < entries.blocks; ++block) {
        AddRowsCopies(layout, *engine.sessions, layer, slot, block, direction,
                      entries.bytes.get() + block * layout.rows_entry_bytes(), copies);
      }
      AddCheckpointCopies(layout, *engine.sessions, layer, slot, entries.blocks, direction,
                          checkpoint, copies);
    }
    int64_t most = 0;
    for (const SegmentCopy& copy : copies) most = std::max(most, copy.bytes);
    const auto on_device = DeviceBuffer<SegmentCopy>::Of(copies).value();
    ASSERT_TRUE(kernels::cuda::CopySegments(engine.forward->stream(), on_device.get(),
                                            std::ssize(copies), most)
                    .ok());
    ASSERT_TRUE(kernels::cuda::Synchronize(engine.forward->stream()).ok());
  }

  static Entries Room(const KvLayout& layout, int64_t blocks) {
    Entries entries{blocks, DeviceBuffer<uint8_t>::Create(
                                static_cast<size_t>(blocks * layout.rows_entry_bytes() +
                                                    layout.checkpoint_bytes()))
                                .value()};
    EXPECT_TRUE(entries.bytes.Fill(0xa5).ok());
    return entries;
  }
};

TEST_F(CudaTransferTest, ResumingFromEntriesIsGoingOnToTheBit) {
  const CudaModel& model = *AllKinds().gpu;
  const KvLayout layout = CudaKvLayout(model.config);
  const std::vector<int32_t> tokens = CudaTestTokens(700, 11);
  for (const int64_t blocks : {1, 3, 5}) {  // in a ring of 768 rows: five go round with the rest
    const size_t prefix = static_cast<size_t>(blocks * kBlockTokens);
    CudaTestEngine cold(model);
    cold.Run(1, std::span(tokens).first(prefix), 200);
    const Entries entries = Room(layout, blocks);
    Copy(layout, cold, 1, TransferDirection::kToEntry, entries);
    const std::vector<float> want = cold.Run(1, std::span(tokens).subspan(prefix), 600);

    CudaTestEngine resumed(model);
    resumed.Run(2, CudaTestTokens(300, 12), 600);  // what the slot held before
    Copy(layout, resumed, 2, TransferDirection::kFromEntry, entries);
    resumed.sessions->set_position(2, static_cast<int64_t>(prefix));
    EXPECT_EQ(resumed.Run(2, std::span(tokens).subspan(prefix), 37), want) << blocks << " blocks";
  }
}

TEST_F(CudaTransferTest, EveryByteOfAnEntryIsOfTheSequence) {
  const CudaModel& model = *AllKinds().gpu;
  const KvLayout layout = CudaKvLayout(model.config);
  const std::vector<int32_t> tokens = CudaTestTokens(256, 13);
  std::vector<std::vector<uint8_t>> made;
  for (const int fill : {0x00, 0xff}) {
    CudaTestEngine engine(model);
    engine.Run(0, tokens, 256);
    Entries entries = Room(layout, 2);
    ASSERT_TRUE(entries.bytes.Fill(fill).ok());
    Copy(layout, engine, 0, TransferDirection::kToEntry, entries);
    made.push_back(entries.bytes.Read().value());
  }
  EXPECT_EQ(made[0], made[1]) << "bytes that nobody wrote";
}

// Each part of a checkpoint is read by what comes next: a block made behind a spoiled one differs.
TEST_F(CudaTransferTest, ASpoiledCheckpointShows) {
  const CudaModel& model = *AllKinds().gpu;
  const KvLayout layout = CudaKvLayout(model.config);
  const std::vector<int32_t> tokens = CudaTestTokens(256, 14);
  CudaTestEngine engine(model);
  engine.Run(0, std::span(tokens).first(128), 128);
  const Entries entries = Room(layout, 1);
  Copy(layout, engine, 0, TransferDirection::kToEntry, entries);
  const std::vector<uint8_t> good = entries.bytes.Read().value();
  const auto second_block = [&](const std::vector<uint8_t>& bytes) {
    Entries resumed = Room(layout, 1);
    const Entries both = Room(layout, 2);
    EXPECT_TRUE(resumed.bytes.Write(bytes).ok());
    Copy(layout, engine, 1, TransferDirection::kFromEntry, resumed);
    engine.sessions->set_position(1, 128);
    engine.Run(1, std::span(tokens).subspan(128), 128);
    Copy(layout, engine, 1, TransferDirection::kToEntry, both);
    std::vector<uint8_t> made = both.bytes.Read().value();
    return std::vector<uint8_t>(made.begin() + layout.rows_entry_bytes(),
                                made.begin() + 2 * layout.rows_entry_bytes());
  };
  const std::vector<uint8_t> want = second_block(good);
  for (size_t layer = 0; layer + 1 < layout.layers().size(); ++layer) {
    const LayerSlots& slots = layout.layers()[layer];
    for (const ComponentSlot& slot : {slots.window, slots.overlap, slots.index_overlap}) {
      if (slot.rows == 0) continue;
      std::vector<uint8_t> bad = good;
      // Its second half: of a window the later rows, of an overlap the scores.
      const int64_t at = layout.rows_entry_bytes() + slot.offset + slot.rows * slot.data_bytes / 2;
      std::fill_n(bad.begin() + at, slot.rows * slot.data_bytes / 2, 0x3c);
      EXPECT_NE(second_block(bad), want) << "layer " << layer << " at " << slot.offset;
    }
  }
}

}  // namespace
}  // namespace cairn::engine
