// Where the bytes of a model's KV lie, by the sizes that the report's numbers give; and the pieces
// of a session's state.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "engine/model/presets.h"
#include "engine/state/reused_memory.h"
#include "engine/state/session_state.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

using cache::LayoutScope;

ModelConfig Flash() {
  ModelConfig c = PresetConfig("mini").value();
  c.vocab = 129280;
  c.dim = 4096;
  c.heads = 64;
  c.q_lora = 1024;
  c.o_lora = 1024;
  c.o_groups = 8;
  c.index_heads = 64;
  c.index_topk = 512;
  c.experts = 256;
  c.experts_per_token = 6;
  c.expert_dim = 2048;
  SetLayers(c, 43, 1);  // 0, 0, then 4 and 128 in turn
  return c;
}

ModelConfig Pro() {
  ModelConfig c = Flash();
  c.dim = 7168;
  c.heads = 128;
  SetLayers(c, 61, 1);
  c.compress_ratios = {128, 128};
  for (int i = 0; i < 29; ++i) c.compress_ratios.insert(c.compress_ratios.end(), {4, 128});
  c.compress_ratios.insert(c.compress_ratios.end(), {4, 0});
  return c;
}

// Spec section 3.3: 21 CSA layers of 32 * (584 + 68) bytes and 20 HCA rows of 584.
TEST(KvLayout, FlashSizesAreTheReports) {
  const KvLayout layout(Flash(), Numerics::kFull);
  EXPECT_EQ(layout.rows_entry_bytes(), 449'824);
  const int64_t windows = 43 * 74'752;
  const int64_t overlaps = 21 * 20'480;
  EXPECT_EQ(windows + overlaps, 3'644'416);
  EXPECT_EQ(layout.checkpoint_bytes(), windows + overlaps + 74'752 + 4 * 4096 * 4);
}

TEST(KvLayout, ProSizesAreTheReports) {
  const KvLayout layout(Pro(), Numerics::kFull);
  EXPECT_EQ(layout.rows_entry_bytes(), 644'024);
  EXPECT_EQ(layout.checkpoint_bytes(), 61 * 74'752 + 30 * 20'480 + 74'752 + 4 * 7168 * 4);
}

TEST(KvLayout, RealModelsFitTheDaemonsLimits) {
  for (const ModelConfig& config : {Flash(), Pro()}) {
    for (const Numerics numerics : {Numerics::kPlain, Numerics::kKvq, Numerics::kFull}) {
      const KvLayout layout(config, numerics);
      const cache::LayoutDescriptor descriptor = layout.Descriptor(Digest{});
      EXPECT_TRUE(descriptor.Validate().ok()) << descriptor.Validate();
      EXPECT_EQ(descriptor.entry_bytes(LayoutScope::kPrefix),
                static_cast<uint64_t>(layout.rows_entry_bytes()));
      EXPECT_EQ(descriptor.entry_bytes(LayoutScope::kTrailing),
                static_cast<uint64_t>(layout.checkpoint_bytes()));
    }
  }
}

// Components lie one after the other, none over another, in the order of the descriptor.
TEST(KvLayout, SlotsTileTheEntries) {
  for (const Numerics numerics : {Numerics::kPlain, Numerics::kKvq}) {
    const KvLayout layout(PresetConfig("nano").value(), numerics);
    int64_t rows_end = 0;
    int64_t checkpoint_end = 0;
    const auto next = [](const ComponentSlot& slot, int64_t& end) {
      if (slot.rows == 0) return;
      EXPECT_EQ(slot.offset, end);
      EXPECT_EQ(slot.data_at(0), slot.offset);
      EXPECT_EQ(slot.scale_at(0), slot.offset + slot.rows * slot.data_bytes);
      EXPECT_EQ(slot.scale_at(slot.rows), slot.offset + slot.bytes());
      end += slot.bytes();
    };
    for (const LayerSlots& layer : layout.layers()) {
      next(layer.rows, rows_end);
      next(layer.index_rows, rows_end);
      next(layer.window, checkpoint_end);
      next(layer.overlap, checkpoint_end);
      next(layer.index_overlap, checkpoint_end);
    }
    next(layout.mtp_hidden(), checkpoint_end);
    EXPECT_EQ(rows_end, layout.rows_entry_bytes());
    EXPECT_EQ(checkpoint_end, layout.checkpoint_bytes());
  }
}

// Whatever the number asked for: whole layers, in order, all of them, in about equal bytes.
TEST(KvLayout, GroupsAreWholeLayersOfAboutEqualBytes) {
  for (const ModelConfig& config : {PresetConfig("nano").value(), Flash(), Pro()}) {
    const KvLayout layout(config, Numerics::kFull);
    const cache::EntryShapes shapes(layout.Descriptor({}));
    for (const int64_t blocks : {1, 8, 1000}) {
      for (const size_t count : {1u, 2u, 4u, 8u, 64u}) {
        const std::vector<LayerGroup> groups = layout.Groups(blocks, count);
        ASSERT_FALSE(groups.empty());
        EXPECT_LE(groups.size(), count);
        int64_t layers = 0, largest = 0, total = 0, layer_max = 0;
        size_t rows = 0, checkpoint = 0;
        for (const LayerGroup& group : groups) {
          int64_t bytes = 0;
          EXPECT_GT(group.layers, layers);
          // The parts of exactly these layers.
          for (; layers < group.layers; ++layers) {
            const LayerSlots& slots = layout.layers()[static_cast<size_t>(layers)];
            int64_t layer_bytes = 0;
            for (const ComponentSlot& slot : {slots.rows, slots.index_rows}) {
              if (slot.rows == 0) continue;
              EXPECT_EQ(shapes.rows[rows++], slot.bytes());
              layer_bytes += blocks * slot.bytes();
            }
            for (const ComponentSlot& slot : {slots.window, slots.overlap, slots.index_overlap}) {
              if (slot.rows == 0) continue;
              EXPECT_EQ(shapes.checkpoint[checkpoint++], slot.bytes());
              layer_bytes += slot.bytes();
            }
            layer_max = std::max(layer_max, layer_bytes);
            bytes += layer_bytes;
          }
          if (layers == std::ssize(layout.layers())) checkpoint += 1;  // mtp.hidden
          EXPECT_EQ(group.parts.rows_parts, rows);
          EXPECT_EQ(group.parts.checkpoint_parts, checkpoint);
          largest = std::max(largest, bytes);
          total += bytes;
        }
        EXPECT_EQ(layers, std::ssize(layout.layers()));
        EXPECT_EQ(rows, shapes.rows.size());
        EXPECT_EQ(checkpoint, shapes.checkpoint.size());
        EXPECT_LE(largest, total / static_cast<int64_t>(count) + 2 * layer_max);
      }
    }
  }
}

TEST(KvLayout, IdentityChangesWithAllThatBytesDependOn) {
  const ModelConfig nano = PresetConfig("nano").value();
  Digest weights;
  std::set<Digest> seen;
  const auto add = [&](const ModelConfig& config, Numerics numerics, RopeRows rope_rows) {
    return seen.insert(KvLayout(config, numerics, rope_rows).Descriptor(weights).Identity()).second;
  };
  EXPECT_TRUE(add(nano, Numerics::kPlain, RopeRows::kBf16));
  EXPECT_TRUE(add(nano, Numerics::kKvq, RopeRows::kBf16));
  EXPECT_TRUE(add(nano, Numerics::kFull, RopeRows::kBf16));
  EXPECT_TRUE(add(nano, Numerics::kFullSm90a, RopeRows::kBf16)) << "on another device";
  EXPECT_TRUE(add(nano, Numerics::kFullAmx, RopeRows::kBf16)) << "in another order";
  EXPECT_TRUE(add(nano, Numerics::kKvq, RopeRows::kF32));
  EXPECT_FALSE(add(nano, Numerics::kKvq, RopeRows::kBf16)) << "the same again";
  weights.bytes[31] = 1;
  EXPECT_TRUE(add(nano, Numerics::kKvq, RopeRows::kBf16));
  ModelConfig other = nano;
  other.route_scale = 2.5;  // no shape changes, every number does
  EXPECT_TRUE(add(other, Numerics::kKvq, RopeRows::kBf16));
  other = nano;
  SetLayers(other, 6, 1);
  EXPECT_TRUE(add(other, Numerics::kKvq, RopeRows::kBf16));
  other = nano;
  SetLayers(other, 5, 0);
  EXPECT_TRUE(add(other, Numerics::kKvq, RopeRows::kBf16));
}

TEST(Numerics, NamesAndBack) {
  for (const Numerics n : {Numerics::kPlain, Numerics::kKvq, Numerics::kFull, Numerics::kFullAmx}) {
    EXPECT_EQ(ParseNumerics(NumericsName(n)), n);
  }
  EXPECT_EQ(ParseNumerics("fp8"), std::nullopt);
  EXPECT_EQ(ParseNumerics(""), std::nullopt);
}

std::vector<float> Row(int64_t dim, float value) {
  return std::vector<float>(static_cast<size_t>(dim), value);
}

TEST(WindowRing, KeepsTheLastPositionsInTheirSlots) {
  const kernels::RowCodec codec(kernels::RowEncoding::kF32, 8, 4);
  WindowRing ring(codec, 4);
  for (int64_t p = 0; p < 10; ++p) ring.Put(p, Row(8, static_cast<float>(p)).data());
  std::vector<float> row(8);
  for (int64_t p = 6; p < 10; ++p) {
    ring.Get(p, row.data());
    EXPECT_EQ(row, Row(8, static_cast<float>(p)));
  }
  ring.Get(9 - 4, row.data());  // its slot now holds position 9
  EXPECT_EQ(row, Row(8, 9.0f));
}

TEST(WindowRing, GivesWhatIsStored) {
  const kernels::RowCodec codec(kernels::RowEncoding::kFp8Bf16, 128, 64);
  WindowRing ring(codec, 2);
  EXPECT_EQ(std::ssize(ring.bytes()), 2 * codec.row_bytes());
  std::vector<float> row = Row(128, 1.03f);
  ring.Put(1, row.data());
  std::vector<float> stored(128);
  ring.Get(1, stored.data());
  EXPECT_NE(stored, row);
  ring.Put(1, stored.data());
  ring.Get(1, row.data());
  EXPECT_EQ(row, stored);  // a stored row stays as it is
  WindowRing copy(codec, 2);
  std::copy(ring.bytes().begin(), ring.bytes().end(), copy.bytes().begin());
  copy.Get(1, row.data());
  EXPECT_EQ(row, stored);  // its bytes are all there is
}

// Spec section 2.10, rule D: 127 * layers * (layers + 1) / 2 for what the next token needs, and the
// 128th row of each window; MTP's window hangs on 128 rows more of every layer.
TEST(ReplayPlan, IsTheTrapezoid) {
  ModelConfig config;
  config.window = 128;
  config.layers = 43;
  ReplayPlan plan = ReplayPlan::To(config, 1 << 20);
  EXPECT_EQ(plan.TokenLayers(), 120'142 + 43);
  EXPECT_EQ(plan.RectangleTokenLayers(), 236'672);
  EXPECT_EQ(plan.end - plan.From(42), 128);
  EXPECT_EQ(plan.From(42) - plan.From(41), 127);
  EXPECT_EQ(plan.WholeFrom(0), plan.From(1));
  EXPECT_EQ(plan.WholeFrom(42), plan.end);
  config.mtp_layers = 1;
  plan = ReplayPlan::To(config, 1 << 20);
  EXPECT_EQ(plan.TokenLayers(), 120'142 + 129 * 43);
  EXPECT_EQ(plan.WholeFrom(42), plan.end - 129);
  config.mtp_layers = 0;
  config.layers = 61;
  plan = ReplayPlan::To(config, 1 << 20);
  EXPECT_EQ(plan.TokenLayers(), 240'157 + 61);
  EXPECT_EQ(plan.RectangleTokenLayers(), 476'288);
}

TEST(ReplayPlan, BeginsWithTheSequenceAndIsCutIntoSteps) {
  ModelConfig config;
  config.window = 128;
  config.layers = 4;
  const ReplayPlan plan = ReplayPlan::To(config, 256);
  EXPECT_EQ(plan.From(0), 0);
  EXPECT_EQ(plan.TokenLayers(), 256 + 256 + 255 + 128);
  EXPECT_EQ(plan.RectangleTokenLayers(), 4 * 256);
  EXPECT_EQ(plan.TokenLayers(0, 100) + plan.TokenLayers(100, 200) + plan.TokenLayers(200, 256),
            plan.TokenLayers());
}

TEST(RowBlocks, GrowByOneZeroedBlockAtATime) {
  RowBlocks blocks(16);
  uint8_t* first = blocks.Write(0);
  EXPECT_TRUE(std::all_of(first, first + 16, [](uint8_t v) { return v == 0; }));
  first[3] = 7;
  EXPECT_EQ(blocks.Write(0), first);
  EXPECT_NE(blocks.Write(1), first);
  EXPECT_EQ(blocks.count(), 2);
  EXPECT_EQ(blocks.Read(0)[3], 7);
}

TEST(RowBlocks, AdoptedBlocksLieWhereTheyLieAndKeepTheirOwner) {
  auto bytes = std::make_shared<std::vector<uint8_t>>(16, uint8_t{5});
  const std::weak_ptr<const void> owner = bytes;
  const uint8_t* at = bytes->data();
  std::shared_ptr<const uint8_t> hold;
  {
    RowBlocks blocks(16);
    blocks.Adopt(at, std::move(bytes));
    EXPECT_EQ(blocks.Read(0), at);
    EXPECT_EQ(blocks.Write(0), nullptr);
    blocks.Write(1)[0] = 9;
    EXPECT_EQ(std::count(at, at + 16, 5), 16);
    hold = blocks.Share(0);
    EXPECT_EQ(hold.get(), at);
  }
  EXPECT_FALSE(owner.expired());
  hold.reset();
  EXPECT_TRUE(owner.expired());
}

TEST(RowBlocks, ACopyLetsTheOwnerGo) {
  auto bytes = std::make_shared<std::vector<uint8_t>>(16, uint8_t{5});
  const std::weak_ptr<const void> owner = bytes;
  RowBlocks blocks(16);
  const uint8_t* const theirs = bytes->data();
  blocks.Adopt(theirs, std::move(bytes));
  auto copy = std::make_shared<std::vector<uint8_t>>(16, uint8_t{5});
  const uint8_t* const at = copy->data();
  blocks.Replace(0, std::move(copy));
  EXPECT_TRUE(owner.expired());
  EXPECT_EQ(blocks.Read(0), at);
}

TEST(SessionState, RowsGoToTheirBlocksAndBack) {
  const ModelConfig config = PresetConfig("nano").value();
  const KvLayout layout(config, Numerics::kPlain);
  SessionState session(config, layout);
  const ComponentSlot& slot = layout.layers()[1].rows;
  const kernels::RowCodec& codec = layout.row_codec();
  for (int64_t row = 0; row < 40; ++row) {
    session.WriteRow(slot, codec, row, Row(codec.dim(), static_cast<float>(row)).data());
  }
  EXPECT_EQ(session.rows().count(), 2);  // 32 rows a block
  std::vector<float> row(static_cast<size_t>(codec.dim()));
  for (const int64_t i : {0, 31, 32, 39}) {
    session.ReadRow(slot, codec, i, row.data());
    EXPECT_EQ(row, Row(codec.dim(), static_cast<float>(i)));
  }
}

TEST(ReusedMemory, WhatWasLetGoIsHandedOutAgainForTheSameSize) {
  std::shared_ptr<uint8_t> first = TakeReused(1000);
  const std::shared_ptr<uint8_t> second = TakeReused(1000);
  EXPECT_NE(first, second);
  const uint8_t* const lay = first.get();
  first.reset();
  const std::shared_ptr<uint8_t> other = TakeReused(1001);
  EXPECT_NE(other.get(), lay);
  const std::shared_ptr<uint8_t> again = TakeReused(1000);
  EXPECT_EQ(again.get(), lay);
}

TEST(SessionState, ASharedCheckpointHasNothingOfWhatLayThereBefore) {
  const ModelConfig config = PresetConfig("nano").value();
  const KvLayout layout(config, Numerics::kKvq);
  SessionState session(config, layout);
  session.last_hidden() = Row(config.hc * config.dim, 0.5f);
  session.Advance(kBlockTokens);
  const auto bytes = static_cast<size_t>(layout.checkpoint_bytes());
  std::vector<uint8_t> saved(bytes);
  session.SaveCheckpoint(saved);
  std::shared_ptr<uint8_t> before = TakeReused(bytes);
  const uint8_t* const lay = before.get();
  std::fill_n(before.get(), bytes, uint8_t{0xee});
  before.reset();
  const std::shared_ptr<const uint8_t> shared = *session.ShareCheckpoint();
  EXPECT_EQ(shared.get(), lay);
  EXPECT_TRUE(std::equal(saved.begin(), saved.end(), shared.get()));
}

TEST(SessionState, CheckpointCarriesWindowsOverlapsAndHiddenAndDropsPartials) {
  const ModelConfig config = PresetConfig("nano").value();
  const KvLayout layout(config, Numerics::kKvq);
  SessionState session(config, layout);
  const int64_t block = kBlockTokens;
  for (int64_t layer = 0; layer < 6; ++layer) {
    LayerState& state = session.layer(layer);
    const float value = static_cast<float>(layer + 1);
    for (int64_t p = 0; p < config.window; ++p) {
      state.window.Put(p, Row(config.head_dim, value).data());
    }
    std::fill(state.main.overlap.values.begin(), state.main.overlap.values.end(), value);
    std::fill(state.indexer.overlap.values.begin(), state.indexer.overlap.values.end(), -value);
  }
  session.last_hidden() = Row(config.hc * config.dim, 0.5f);
  session.Advance(block);
  std::vector<uint8_t> checkpoint(static_cast<size_t>(layout.checkpoint_bytes()));
  session.SaveCheckpoint(checkpoint);

  SessionState other(config, layout);
  other.layer(1).main.partial.kv.assign(3, 1.0f);
  other.LoadCheckpoint(1, checkpoint);
  EXPECT_EQ(other.position(), block);
  EXPECT_EQ(other.last_hidden(), session.last_hidden());
  for (int64_t layer = 0; layer < 6; ++layer) {
    const LayerState& a = session.layer(layer);
    const LayerState& b = other.layer(layer);
    EXPECT_TRUE(
        std::equal(a.window.bytes().begin(), a.window.bytes().end(), b.window.bytes().begin()));
    EXPECT_EQ(a.main.overlap.values, b.main.overlap.values);
    EXPECT_EQ(a.indexer.overlap.values, b.indexer.overlap.values);
    EXPECT_EQ(a.main.overlap.values.empty(), config.ratio(layer) != 4);
    EXPECT_TRUE(b.main.partial.kv.empty());
  }
  std::vector<uint8_t> again(checkpoint.size());
  other.SaveCheckpoint(again);
  EXPECT_EQ(again, checkpoint);
}

}  // namespace
}  // namespace cairn::engine
