// Invariance: a token's logits have the same bits whatever the chunking of its prompt, the number
// of threads, the other sequences of the step, and the point of resumption.
//
// Method: one sequence that reaches into the fifth block is computed in one step by one thread;
// every other way of computing it is compared to that, bit for bit, MTP logits included. The
// negative tests spoil one part of a checkpoint each and demand that the bits change, so these
// comparisons can see.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>

#include "engine/forward/test_models.h"
#include "kernels/cpu/cpu_path.h"
#include "store/base/limits.h"

namespace cairn::engine {
namespace {

constexpr int64_t kTokens = 560;
constexpr int64_t kBlock = kBlockTokens;

std::span<const int32_t> Sequence() {
  static const std::vector<int32_t> tokens = RandomTokens(kTokens, 7);
  return tokens;
}

std::span<const float> Tail(const std::vector<float>& values, int64_t from) {
  return std::span(values).subspan(static_cast<size_t>(from));
}

bool SameBits(std::span<const float> a, std::span<const float> b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size_bytes()) == 0;
}

// What a cache keeps of a sequence: its rows by block, and checkpoints at block ends.
struct Stored {
  std::vector<std::shared_ptr<const uint8_t>> rows;
  std::vector<std::vector<uint8_t>> checkpoints;  // [i]: after block i
};

Stored Store(const Model& model, std::span<const int32_t> tokens) {
  Forward forward(model, 1);
  SessionState session(model.config, *model.layout);
  Stored stored;
  for (int64_t block = 0; (block + 1) * kBlock <= std::ssize(tokens); ++block) {
    Outcome ignored;
    Continue(forward, session, tokens.subspan(static_cast<size_t>(block * kBlock), kBlock), 50,
             ignored, INT64_MAX);
    stored.rows.push_back(session.rows().Share(block));
    stored.checkpoints.emplace_back(static_cast<size_t>(model.layout->checkpoint_bytes()));
    session.SaveCheckpoint(stored.checkpoints.back());
  }
  return stored;
}

SessionState Resume(const Model& model, const Stored& stored, int64_t blocks,
                    std::span<const uint8_t> checkpoint) {
  SessionState session(model.config, *model.layout);
  for (int64_t i = 0; i < blocks; ++i) {
    const std::shared_ptr<const uint8_t>& rows = stored.rows[static_cast<size_t>(i)];
    session.rows().Adopt(rows.get(), rows);
  }
  session.LoadCheckpoint(blocks, checkpoint);
  return session;
}

class Invariance : public testing::TestWithParam<Mode> {
 protected:
  const Model& model() const { return ModelOf(GetParam()); }
  int64_t vocab() const { return model().config.vocab; }

  const Outcome& Whole() const {
    static auto* all = new std::map<std::string, Outcome>;
    const auto it = all->find(GetParam().name);
    if (it != all->end()) return it->second;
    return all->emplace(GetParam().name, RunFresh(model(), Sequence(), kTokens)).first->second;
  }

  const Stored& Blocks() const {
    static auto* all = new std::map<std::string, Stored>;
    const auto it = all->find(GetParam().name);
    if (it != all->end()) return it->second;
    return all->emplace(GetParam().name, Store(model(), Sequence())).first->second;
  }

  // `outcome` is that of positions [from, end) of the sequence; its MTP rows begin one earlier,
  // where the token that follows was still unknown.
  void ExpectAsWhole(const Outcome& outcome, int64_t from, int64_t end,
                     const std::string& what) const {
    const std::span<const float> logits = std::span(Whole().logits)
                                              .subspan(static_cast<size_t>(from * vocab()),
                                                       static_cast<size_t>((end - from) * vocab()));
    EXPECT_TRUE(SameBits(outcome.logits, logits)) << what;
    const int64_t mtp_from = std::max<int64_t>(from - 1, 0);
    const std::span<const float> mtp =
        std::span(Whole().mtp)
            .subspan(static_cast<size_t>(mtp_from * vocab()),
                     static_cast<size_t>((end - 1 - mtp_from) * vocab()));
    EXPECT_TRUE(SameBits(outcome.mtp, mtp)) << what << ", MTP";
  }
};

TEST_P(Invariance, TheModelUsesAllItHas) {
  // More visible rows than the indexer takes, whole HCA rows, and a vocabulary that is told apart.
  EXPECT_GT(kTokens / 4, 4 * model().config.index_topk);
  EXPECT_GE(kTokens / 128, 4);
  EXPECT_EQ(model().layers[0].ffn.tid2eid.empty(), false);
  EXPECT_EQ(model().layers[3].ffn.bias.empty(), false);
  EXPECT_EQ(Whole().logits.size(), static_cast<size_t>(kTokens * vocab()));
  EXPECT_EQ(Whole().mtp.size(), static_cast<size_t>((kTokens - 1) * vocab()));
}

TEST_P(Invariance, ChunksAndThreads) {
  struct Way {
    int64_t chunk;
    int threads;
  };
  for (const Way& way : {Way{7, 2}, Way{128, 3}, Way{512, 4}}) {
    ExpectAsWhole(
        RunFresh(model(), Sequence(), way.chunk, way.threads), 0, kTokens,
        "chunks of " + std::to_string(way.chunk) + ", " + std::to_string(way.threads) + " threads");
  }
}

// Past the first two block ends: token by token, and in threes.
TEST_P(Invariance, SmallChunks) {
  for (const int64_t chunk : {1, 3}) {
    ExpectAsWhole(RunFresh(model(), Sequence().first(270), chunk), 0, 270,
                  "chunks of " + std::to_string(chunk));
  }
}

// Three sequences of different lengths share steps, each in its own chunks, each at its own
// position.
TEST_P(Invariance, Company) {
  const std::vector<std::vector<int32_t>> prompts = {
      {Sequence().begin(), Sequence().begin() + 260}, RandomTokens(131, 8), RandomTokens(40, 9)};
  const int64_t chunks[] = {97, 30, 1};
  std::vector<SessionState> sessions(3, SessionState(model().config, *model().layout));
  std::vector<Outcome> outcomes(3);
  Forward forward(model(), 1);
  for (;;) {
    std::vector<StepItem> items;
    std::vector<size_t> owners;
    for (size_t s = 0; s < 3; ++s) {
      const size_t done = static_cast<size_t>(sessions[s].position());
      if (done == prompts[s].size()) continue;
      StepItem item;
      item.session = &sessions[s];
      item.tokens =
          std::span(prompts[s])
              .subspan(done, std::min(prompts[s].size() - done, static_cast<size_t>(chunks[s])));
      item.want = WantLogits::kAll;
      item.mtp_from = 0;
      item.on_mtp = [&outcomes, s](int64_t, std::span<const float> logits) {
        outcomes[s].mtp.insert(outcomes[s].mtp.end(), logits.begin(), logits.end());
      };
      items.push_back(std::move(item));
      owners.push_back(s);
    }
    if (items.empty()) break;
    ASSERT_TRUE(forward.Run(items).ok());
    for (size_t i = 0; i < items.size(); ++i) {
      std::vector<float>& to = outcomes[owners[i]].logits;
      to.insert(to.end(), items[i].logits.begin(), items[i].logits.end());
    }
  }
  ExpectAsWhole(outcomes[0], 0, 260, "the first");
  for (const size_t s : {1u, 2u}) {
    EXPECT_EQ(outcomes[s], RunFresh(model(), prompts[s], 200)) << "sequence " << s;
  }
}

constexpr int64_t kLengths[] = {127, 128, 129, 130, 255, 256, 257, 383, 384, 385, 511, 512, 513};

// Steps that end at each of these lengths, so that groups and blocks are cut in every way; what is
// stored on the way has the same bits too.
TEST_P(Invariance, StepsEndingAroundBlockEnds) {
  Forward forward(model(), 1);
  SessionState session(model().config, *model().layout);
  Outcome outcome;
  std::vector<uint8_t> checkpoint(static_cast<size_t>(model().layout->checkpoint_bytes()));
  const size_t block_bytes = static_cast<size_t>(model().layout->rows_entry_bytes());
  for (const int64_t length : kLengths) {
    const size_t from = static_cast<size_t>(session.position());
    Continue(forward, session, Sequence().subspan(from, static_cast<size_t>(length) - from),
             kTokens, outcome);
    ExpectAsWhole(outcome, 0, length, std::to_string(length) + " tokens");
    if (length % kBlock != 0) continue;
    const size_t block = static_cast<size_t>(length / kBlock - 1);
    session.SaveCheckpoint(checkpoint);
    EXPECT_EQ(checkpoint, Blocks().checkpoints[block]) << length;
    EXPECT_EQ(std::memcmp(session.rows().Read(static_cast<int64_t>(block)),
                          Blocks().rows[block].get(), block_bytes),
              0)
        << length;
  }
}

// The tests that go through stored rows and checkpoints.
class Resumption : public Invariance {};

// A prompt of each length, resumed at its last block end, then decoded.
TEST_P(Resumption, LengthsAroundBlockEnds) {
  for (const int64_t length : kLengths) {
    const int64_t blocks = length / kBlock;
    const int64_t start = blocks * kBlock;
    const int64_t end = length + 3;
    if (blocks == 0) continue;
    Forward forward(model(), 1);
    SessionState session =
        Resume(model(), Blocks(), blocks, Blocks().checkpoints[static_cast<size_t>(blocks - 1)]);
    Outcome outcome;
    const auto run = [&](int64_t from, int64_t to, int64_t chunk) {
      Continue(forward, session,
               Sequence().subspan(static_cast<size_t>(from), static_cast<size_t>(to - from)), chunk,
               outcome);
    };
    run(start, length, kTokens);
    run(length, end, 1);
    ExpectAsWhole(outcome, start, end,
                  std::to_string(length) + " tokens from " + std::to_string(start));
  }
}

TEST_P(Resumption, FromEveryBlockEnd) {
  const Stored& stored = Blocks();
  const size_t bytes = static_cast<size_t>(model().layout->rows_entry_bytes());
  std::vector<std::vector<uint8_t>> before;
  for (const auto& rows : stored.rows) before.emplace_back(rows.get(), rows.get() + bytes);
  for (int64_t blocks = 1; blocks <= std::ssize(stored.checkpoints); ++blocks) {
    Forward forward(model(), 1);
    SessionState session =
        Resume(model(), stored, blocks, stored.checkpoints[static_cast<size_t>(blocks - 1)]);
    EXPECT_EQ(session.position(), blocks * kBlock);
    // Odd chunks, then one over the next block's end.
    const int64_t start = blocks * kBlock;
    const int64_t end = std::min(start + 150, kTokens);
    const std::span<const int32_t> rest =
        Sequence().subspan(static_cast<size_t>(start), static_cast<size_t>(end - start));
    Outcome outcome;
    Continue(forward, session, rest.first(30), 9, outcome);
    Continue(forward, session, rest.subspan(30), kTokens, outcome);
    ExpectAsWhole(outcome, start, end, "after block " + std::to_string(blocks));
  }
  // Adopted blocks are somebody else's memory.
  for (size_t i = 0; i < before.size(); ++i) {
    EXPECT_EQ(std::memcmp(before[i].data(), stored.rows[i].get(), bytes), 0) << "block " << i;
  }
}

// Continues after two blocks from a checkpoint with bytes [offset, offset + size) set to zero.
class Spoiled : public Invariance {
 protected:
  static constexpr int64_t kBlocks = 2;
  static constexpr int64_t kFrom = kBlocks * kBlock;
  static constexpr int64_t kEnd = kFrom + 40;

  Outcome After(int64_t offset, int64_t size) const {
    std::vector<uint8_t> checkpoint = Blocks().checkpoints[kBlocks - 1];
    const auto from = checkpoint.begin() + offset;
    EXPECT_TRUE(std::any_of(from, from + size, [](uint8_t v) { return v != 0; }));
    std::fill(from, from + size, 0);
    Forward forward(model(), 1);
    SessionState session = Resume(model(), Blocks(), kBlocks, checkpoint);
    Outcome outcome;
    Continue(forward, session, Sequence().subspan(kFrom, kEnd - kFrom), 13, outcome);
    return outcome;
  }
  bool MainAsWhole(const Outcome& outcome) const {
    return SameBits(
        outcome.logits,
        Tail(Whole().logits, kFrom * vocab()).first(static_cast<size_t>((kEnd - kFrom) * vocab())));
  }
  bool MtpAsWhole(const Outcome& outcome) const {
    return SameBits(outcome.mtp, Tail(Whole().mtp, (kFrom - 1) * vocab())
                                     .first(static_cast<size_t>((kEnd - kFrom) * vocab())));
  }
  const LayerSlots& slots(size_t layer) const { return model().layout->layers()[layer]; }
};

TEST_P(Spoiled, NothingSpoiledIsSeenAsNothing) {
  // Slot 0 holds position kFrom - 128, which the next token no longer sees: 127 rows suffice.
  for (size_t layer = 0; layer < model().layout->layers().size(); ++layer) {
    const ComponentSlot& window = slots(layer).window;
    const Outcome outcome = After(window.data_at(0), window.data_bytes);
    EXPECT_TRUE(MainAsWhole(outcome)) << "layer " << layer;
    // The MTP block is one token behind, so it still sees that row.
    EXPECT_EQ(MtpAsWhole(outcome), layer + 1 != model().layout->layers().size());
  }
}

TEST_P(Spoiled, Overlap) {
  for (const size_t layer : {1u, 3u}) {
    const ComponentSlot& overlap = slots(layer).overlap;
    EXPECT_FALSE(MainAsWhole(After(overlap.offset, overlap.bytes()))) << "layer " << layer;
  }
}

TEST_P(Spoiled, OneWindowRow) {
  for (size_t layer = 0; layer < 4; ++layer) {
    const ComponentSlot& window = slots(layer).window;
    EXPECT_FALSE(MainAsWhole(After(window.data_at(1), window.data_bytes))) << "layer " << layer;
  }
}

TEST_P(Spoiled, MtpHiddenAndWindow) {
  const ComponentSlot& hidden = model().layout->mtp_hidden();
  const ComponentSlot& window = slots(4).window;
  for (const ComponentSlot& slot : {hidden, window}) {
    const Outcome outcome = After(slot.offset, slot.bytes());
    EXPECT_TRUE(MainAsWhole(outcome));
    EXPECT_FALSE(MtpAsWhole(outcome));
  }
}

// What a step is computed with: every set of instructions that PairLinear has here.
TEST(FullAmx, HasTheSameBitsWithWhateverComputesIt) {
  const Model& model = ModelOf(kModes[4]);
  const kernels::PairPath chosen = kernels::ChosenPairPath();
  kernels::ChoosePairPath(kernels::PairPath::kVectors);
  const Outcome vectors = RunFresh(model, Sequence().first(300), 100);
  EXPECT_NE(RunFresh(ModelOf(kModes[3]), Sequence().first(300), 100), vectors)
      << "the same bits as full: this sees nothing";
  int others = 0;
  for (const kernels::PairPath path : {kernels::PairPath::kBf16, kernels::PairPath::kAmx}) {
    if (!kernels::HasPairPath(path)) continue;
    kernels::ChoosePairPath(path);
    EXPECT_EQ(RunFresh(model, Sequence().first(300), 100), vectors) << static_cast<int>(path);
    ++others;
  }
  kernels::ChoosePairPath(chosen);
  if (others == 0) GTEST_SKIP() << "neither AMX nor AVX-512's BF16 here: not compared with them";
}

const auto kName = [](const auto& instance) { return std::string(instance.param.name); };
// How rope dims are stored matters to nothing but stored rows.
INSTANTIATE_TEST_SUITE_P(Modes, Invariance,
                         testing::Values(kModes[0], kModes[1], kModes[3], kModes[4], kModes[5]),
                         kName);
INSTANTIATE_TEST_SUITE_P(Modes, Resumption, testing::ValuesIn(kModes), kName);
INSTANTIATE_TEST_SUITE_P(Modes, Spoiled, testing::ValuesIn(kModes), kName);

}  // namespace
}  // namespace cairn::engine
