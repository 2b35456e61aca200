// Goal: a component of a resume point that is missing, damaged or another model's costs the hit and
// nothing else. Method: every component that the layout has, in rows and checkpoints, one at a
// time; the engine's tokens and logits must be the cold run's, and what it computed is counted by
// the layers, not by its own report.
#include <list>

#include "store/base/checksum.h"
#include "tests/resume/resume_rig.h"

namespace cairn::engine {
namespace {

using cache::LayoutComponent;
using cache::LayoutScope;

const cache::LayoutDescriptor& Layout() {
  static const cache::LayoutDescriptor layout =
      SmallModel().layout->Descriptor(SmallModel().weights_identity);
  return layout;
}

const Model& OtherWeights() {
  static const std::unique_ptr<Model> model = MakeSmallModel(6, Numerics::kKvq);
  return *model;
}

// The entry of the second block, or of the checkpoint after it, whichever the component is in.
cache::EntryView& EntryWith(const LayoutComponent& component, cache::FetchedPrefix& prefix) {
  return component.scope == LayoutScope::kPrefix ? prefix.rows[1] : *prefix.checkpoint;
}

uint64_t OffsetOf(const LayoutComponent& wanted) {
  uint64_t at = 0;
  for (const LayoutComponent& component : Layout().components) {
    if (component.name == wanted.name) return at;
    if (component.scope == wanted.scope) at += component.bytes();
  }
  ADD_FAILURE() << wanted.name;
  return at;
}

// One prompt of two blocks and a rest, stored by two models with the same shapes.
class Components : public testing::Test {
 protected:
  Components() {
    Engine(daemon_.Connect()).Run(prompt_);
    Engine(daemon_.Connect(OtherWeights()), OtherWeights()).Run(prompt_);
    foreign_api_ = *daemon_.Connect(OtherWeights());
    const std::vector<Digest> chain =
        cache::DigestChain(foreign_api_->registration().root, prompt_);
    foreign_ = *foreign_api_->Fetch({.chain = chain});
    EXPECT_EQ(foreign_->rows.size(), 2u);
  }
  std::vector<uint8_t>& Copy(const cache::EntryView& entry) {
    return copies_.emplace_back(entry.payload.begin(), entry.payload.end());
  }

  // Resumes with `harm` done to the deepest hit, the one of two blocks.
  SequenceResult Resume(const std::function<void(cache::FetchedPrefix&)>& harm) {
    auto api = Wrap(daemon_);
    int harmed = 0;
    api->on_fetch = [&](cache::FetchedPrefix& prefix) {
      if (prefix.rows.size() != 2) return;
      ++harmed;
      harm(prefix);
    };
    Engine engine(absl::StatusOr<std::unique_ptr<cache::CacheApi>>(std::move(api)));
    int64_t computed = 0;
    engine.forward.set_layer_probe([&](int64_t layer, int64_t rows, const float*) {
      if (layer == 0) computed += rows;
    });
    SequenceResult result = engine.Run(prompt_);
    EXPECT_GT(harmed, 0);
    EXPECT_EQ(result.logits, cold_.logits);
    EXPECT_EQ(result.output, cold_.output);
    EXPECT_EQ(result.recomputed_tokens + result.resume.prefix_tokens, std::ssize(prompt_));
    EXPECT_EQ(computed, result.recomputed_tokens + std::ssize(result.output) - 1);
    EXPECT_EQ(engine.said.size(), engine.cache.attached() ? 0u : 1u);
    return result;
  }
  // The damage is counted once, and the hit before it is taken.
  void ExpectOneFailure(const std::function<void(cache::FetchedPrefix&)>& harm) {
    const SequenceResult result = Resume(harm);
    EXPECT_EQ(result.resume.checksum_failures, 1u);
    EXPECT_EQ(result.resume.prefix_tokens, 128);
  }

  const std::vector<int32_t> prompt_ = Prompt(300);
  const SequenceResult cold_ = RunCold(prompt_);
  const Daemon daemon_;
  std::unique_ptr<cache::CacheApi> foreign_api_;
  std::unique_ptr<cache::FetchedPrefix> foreign_;
  std::list<std::vector<uint8_t>> copies_;
};

TEST_F(Components, UnharmedTheHitIsOfTwoBlocks) {
  EXPECT_EQ(Resume([](cache::FetchedPrefix&) {}).resume.prefix_tokens, 256);
}

TEST_F(Components, ADamagedOneCostsTheHit) {
  uint64_t bit = 0;
  for (const LayoutComponent& component : Layout().components) {
    SCOPED_TRACE(component.name);
    ExpectOneFailure([&](cache::FetchedPrefix& prefix) {
      cache::EntryView& entry = EntryWith(component, prefix);
      std::vector<uint8_t>& bytes = Copy(entry);
      bit = bit * 6364136223846793005 + 1442695040888963407;
      bytes[OffsetOf(component) + (bit >> 8) % component.bytes()] ^=
          static_cast<uint8_t>(1 << (bit >> 61));
      entry.payload = bytes;
    });
  }
}

TEST_F(Components, AnotherModelsOneCostsTheHit) {
  for (const LayoutComponent& component : Layout().components) {
    SCOPED_TRACE(component.name);
    ExpectOneFailure([&](cache::FetchedPrefix& prefix) {
      cache::EntryView& entry = EntryWith(component, prefix);
      const auto other =
          EntryWith(component, *foreign_).payload.subspan(OffsetOf(component), component.bytes());
      std::vector<uint8_t>& bytes = Copy(entry);
      ASSERT_FALSE(std::equal(other.begin(), other.end(),
                              bytes.begin() + static_cast<ptrdiff_t>(OffsetOf(component))));
      std::copy(other.begin(), other.end(),
                bytes.begin() + static_cast<ptrdiff_t>(OffsetOf(component)));
      entry.payload = bytes;
    });
  }
}

TEST_F(Components, AMissingOneCostsTheHitThoughTheChecksumsAreGood) {
  for (const LayoutComponent& component : Layout().components) {
    SCOPED_TRACE(component.name);
    const SequenceResult result = Resume([&](cache::FetchedPrefix& prefix) {
      cache::EntryView& entry = EntryWith(component, prefix);
      std::vector<uint8_t>& bytes = Copy(entry);
      const auto begin = bytes.begin() + static_cast<ptrdiff_t>(OffsetOf(component));
      bytes.erase(begin, begin + static_cast<ptrdiff_t>(component.bytes()));
      std::vector<EntryPart> parts;
      uint64_t at = 0;
      for (const LayoutComponent& kept : Layout().components) {
        if (kept.scope != component.scope || kept.name == component.name) continue;
        parts.push_back({static_cast<uint32_t>(kept.bytes()),
                         Checksum(std::span(bytes).subspan(at, kept.bytes()))});
        at += kept.bytes();
      }
      entry = {.key = entry.key, .payload = bytes, .parts = std::move(parts)};
      ASSERT_TRUE(entry.Verify().ok());
    });
    EXPECT_EQ(result.resume.prefix_tokens, 0);  // such a cache is left
  }
}

TEST_F(Components, OtherWeightsAndOtherNumericsNeverMeetTheseEntries) {
  const std::unique_ptr<Model> numerics = MakeSmallModel(5, Numerics::kPlain);
  const std::unique_ptr<Model> weights = MakeSmallModel(7, Numerics::kKvq);
  for (const Model* model : {numerics.get(), weights.get()}) {
    const SequenceResult first = Engine(daemon_.Connect(*model), *model).Run(prompt_);
    EXPECT_EQ(first.resume.prefix_tokens, 0);
    EXPECT_EQ(first.logits, RunCold(prompt_, *model).logits);
    // A test that sees no hit must also see one.
    const SequenceResult second = Engine(daemon_.Connect(*model), *model).Run(prompt_);
    EXPECT_EQ(second.resume.prefix_tokens, 256);
    EXPECT_EQ(second.logits, first.logits);
  }
}

}  // namespace
}  // namespace cairn::engine
