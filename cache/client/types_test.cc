// Names must never change by accident: the golden digests below were computed independently, with
// Python's hashlib and struct, from the formats that digest_chain.h and layout.h state.
#include <gtest/gtest.h>

#include "cache/client/cache_api.h"
#include "cache/client/digest_chain.h"
#include "cache/client/layout.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

std::span<const uint8_t> Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::vector<int32_t> GoldenTokens() {
  std::vector<int32_t> tokens(300);
  for (int32_t i = 0; i < 300; ++i) tokens[static_cast<size_t>(i)] = (i * 7919 + 13) % 129280;
  tokens[5] = -1;
  return tokens;
}

Digest GoldenRoot() { return NamespaceRoot(Bytes("tenant secret"), Sha256(Bytes("layout"))); }

LayoutDescriptor SmallLayout() {
  LayoutDescriptor layout;
  layout.model = "nano";
  layout.numerics = "kvq";
  layout.weights = Sha256(Bytes("weights"));
  layout.components = {
      {"layer.0.csa_rows", LayoutScope::kPrefix, 4, 32, 584, 8, "fp8e4m3x64+bf16"},
      {"layer.0.window", LayoutScope::kTrailing, 1, 128, 584, 8, "fp8e4m3x64+bf16"},
  };
  return layout;
}

TEST(DigestChain, GoldenRoot) {
  EXPECT_EQ(GoldenRoot().ToHex(),
            "3344307447d140002611d51110a2e40c1cfa6e48124738773e2aa18e8292c8dc");
  EXPECT_EQ(NamespaceRoot({}, Sha256(Bytes("layout"))).ToHex(),
            "167a6636c0cf9176ef76fa0559ec111a918f1cf8e9748c6b042a3de3a4c81c74");
}

TEST(DigestChain, GoldenBlocks) {
  const std::vector<int32_t> tokens = GoldenTokens();
  const std::vector<Digest> chain = DigestChain(GoldenRoot(), tokens);
  ASSERT_EQ(chain.size(), 2u);  // 300 tokens: the tail of 44 has no name
  EXPECT_EQ(chain[0].ToHex(), "78444f47f0dd324aa5ab82b7f95ae67e1364c848944459d6249fba290425ca81");
  EXPECT_EQ(chain[1].ToHex(), "208bd6f6324f5b9b68bfa66f025a0fef19385b84eea3a30551add8787aa46aef");
  const Digest far = BlockDigest(GoldenRoot(), (1ull << 40) + 3,
                                 std::span<const int32_t>(tokens).first(kBlockTokens));
  EXPECT_EQ(far.ToHex(), "437423ed436fd5a4afe9ac747b604ec34747c7229b5d88d735fbbdead424c1db");
}

TEST(DigestChain, WholeBlocksOnly) {
  const std::vector<int32_t> tokens = GoldenTokens();
  const std::span<const int32_t> all(tokens);
  EXPECT_EQ(DigestChain(GoldenRoot(), all.first(0)).size(), 0u);
  EXPECT_EQ(DigestChain(GoldenRoot(), all.first(127)).size(), 0u);
  EXPECT_EQ(DigestChain(GoldenRoot(), all.first(128)).size(), 1u);
  EXPECT_EQ(DigestChain(GoldenRoot(), all.first(255)).size(), 1u);
  EXPECT_EQ(DigestChain(GoldenRoot(), all.first(256)).size(), 2u);
}

TEST(DigestChain, EveryTokenCounts) {
  const std::vector<int32_t> tokens = GoldenTokens();
  const std::vector<Digest> chain = DigestChain(GoldenRoot(), tokens);
  for (size_t i = 0; i < 256; ++i) {
    std::vector<int32_t> other = tokens;
    other[i] ^= 1;
    const std::vector<Digest> changed = DigestChain(GoldenRoot(), other);
    EXPECT_EQ(changed[0] == chain[0], i >= 128) << "token " << i;
    EXPECT_NE(changed[1], chain[1]) << "token " << i;
  }
}

TEST(DigestChain, TenantsAndLayoutsNeverMeet) {
  const std::vector<int32_t> tokens = GoldenTokens();
  const Digest layout = Sha256(Bytes("layout"));
  const Digest a = NamespaceRoot(Bytes("a"), layout);
  const Digest b = NamespaceRoot(Bytes("b"), layout);
  const Digest c = NamespaceRoot(Bytes("a"), Sha256(Bytes("layout 2")));
  EXPECT_NE(DigestChain(a, tokens)[0], DigestChain(b, tokens)[0]);
  EXPECT_NE(DigestChain(a, tokens)[0], DigestChain(c, tokens)[0]);
}

TEST(Layout, GoldenIdentity) {
  EXPECT_EQ(SmallLayout().Identity().ToHex(),
            "0432eefc736cdfc4cbb5a979350995d8c0a7bbeae6a07734d80104baca35df2d");
}

TEST(Layout, IdentityCoversEveryField) {
  const LayoutDescriptor base = SmallLayout();
  std::vector<LayoutDescriptor> others(13, base);
  others[0].version = 2;
  others[1].model = "nan";
  others[2].numerics = "full";
  others[3].weights.bytes[31] ^= 1;
  others[4].components[0].name += "x";
  others[5].components[0].scope = LayoutScope::kTrailing;
  others[6].components[0].tokens_per_row = 8;
  others[7].components[0].rows = 16;
  others[8].components[0].row_bytes = 585;
  others[9].components[0].scale_bytes = 4;
  others[10].components[0].encoding = "f32";
  others[11].components.pop_back();
  std::swap(others[12].components[0], others[12].components[1]);
  for (size_t i = 0; i < others.size(); ++i) EXPECT_NE(others[i].Identity(), base.Identity()) << i;
  // Bytes that move from one field to the next change the framing.
  LayoutDescriptor moved = base;
  moved.model = "nanok";
  moved.numerics = "vq";
  EXPECT_NE(moved.Identity(), base.Identity());
}

TEST(Layout, Sizes) {
  const LayoutDescriptor layout = SmallLayout();
  EXPECT_EQ(layout.entry_bytes(LayoutScope::kPrefix), 32u * 584);
  EXPECT_EQ(layout.part_bytes(LayoutScope::kTrailing), std::vector<uint32_t>{128 * 584});
}

void ExpectRefused(const LayoutDescriptor& layout, const std::string& field) {
  const absl::Status status = layout.Validate();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << field;
  EXPECT_NE(std::string(status.message()).find(field), std::string::npos) << status;
}

TEST(Layout, ValidateNamesTheField) {
  EXPECT_TRUE(SmallLayout().Validate().ok());
  LayoutDescriptor l = SmallLayout();
  l.model.assign(kLayoutTextBytesMax + 1, 'm');
  ExpectRefused(l, "layout.model");
  l = SmallLayout();
  l.numerics.clear();
  ExpectRefused(l, "layout.numerics");
  l = SmallLayout();
  l.components[1].name = l.components[0].name;
  ExpectRefused(l, "components[1].name");
  l = SmallLayout();
  l.components[0].name.clear();
  ExpectRefused(l, "components[0].name");
  l = SmallLayout();
  l.components[0].encoding.assign(1000, 'e');
  ExpectRefused(l, "components[0].encoding");
  l = SmallLayout();
  l.components[0].scope = static_cast<LayoutScope>(3);
  ExpectRefused(l, "components[0].scope");
  l = SmallLayout();
  l.components[0].rows = 31;
  ExpectRefused(l, "components[0].rows");
  l = SmallLayout();
  l.components[0].tokens_per_row = 0;
  ExpectRefused(l, "components[0].rows");
  l = SmallLayout();
  l.components[0].rows = 1u << 31;  // 2^31 rows of 2^31 tokens: must not wrap round to one block
  l.components[0].tokens_per_row = 1u << 31;
  ExpectRefused(l, "components[0].rows");
  l = SmallLayout();
  l.components[1].rows = 0;
  ExpectRefused(l, "components[1].rows");
  l = SmallLayout();
  l.components[1].row_bytes = 0;
  ExpectRefused(l, "components[1].row_bytes");
  l = SmallLayout();
  l.components[1].scale_bytes = 584;
  ExpectRefused(l, "components[1].scale_bytes");
  l = SmallLayout();
  l.components[1].row_bytes = 0xffffffff;
  l.components[1].rows = 0xffffffff;
  ExpectRefused(l, "components[1].row_bytes");
  l = SmallLayout();
  l.components.erase(l.components.begin());
  ExpectRefused(l, "components");
}

TEST(Layout, ValidateBoundsTheWhole) {
  LayoutDescriptor l = SmallLayout();
  l.components.resize(kLayoutComponentsMax + 1, l.components[0]);
  ExpectRefused(l, "components");
  l = SmallLayout();
  for (uint32_t i = 0; i < kPartsPerEntryMax; ++i) {
    LayoutComponent c = l.components[1];
    c.name = absl::StrCat("w", i);
    l.components.push_back(c);
  }
  ExpectRefused(l, "parts in a checkpoint");
  l = SmallLayout();
  for (uint32_t i = 0; i < 3; ++i) {
    LayoutComponent c = l.components[1];
    c.name = absl::StrCat("w", i);
    c.row_bytes = static_cast<uint32_t>(kEntryBytesMax / 2 / c.rows);
    l.components.push_back(c);
  }
  ExpectRefused(l, "bytes in a checkpoint");
}

TEST(CheckpointPolicy, ParseAndToStringAreInverse) {
  for (const std::string text : {"zero", "full", "ends", "every:128", "every:4096+ends",
                                 "full+every:256", "full+every:8388608+ends", "branches",
                                 "full:ttl=3650d+every:128:ttl=90s+branches:ttl=2h+ends:ttl=5m"}) {
    const absl::StatusOr<CheckpointPolicy> policy = CheckpointPolicy::Parse(text);
    ASSERT_TRUE(policy.ok()) << policy.status();
    EXPECT_EQ(policy->ToString(), text);
  }
  EXPECT_EQ(CheckpointPolicy::Parse("ends+every:128")->ToString(), "every:128+ends");
  EXPECT_EQ(CheckpointPolicy::Parse("ends:ttl=120m+branches:ttl=48h")->ToString(),
            "branches:ttl=2d+ends:ttl=2h");
}

TEST(CheckpointPolicy, ParseRefuses) {
  for (const std::string text : {"",
                                 "+",
                                 "full+",
                                 "+ends",
                                 "zero+ends",
                                 "Full",
                                 "every",
                                 "every:",
                                 "every:0",
                                 "every:100",
                                 "every:-128",
                                 "every:8388736",
                                 "every:99999999999",
                                 "every:128+every:256",
                                 "full+full",
                                 "ends+ends",
                                 "every:128 ",
                                 "branches+branches",
                                 "zero:ttl=1h",
                                 "ends:ttl=",
                                 "ends:ttl=h",
                                 "ends:ttl=0s",
                                 "ends:ttl=1",
                                 "ends:ttl=-1h",
                                 "ends:ttl=1h1m",
                                 "ends:ttl=1.5h",
                                 "ends:ttl=3651d",
                                 "ends:ttl=99999999999s",
                                 "ends:ttl=4294967295d",
                                 "ends:ttl=1h:ttl=1h",
                                 "ends ttl=1h",
                                 "every:ttl=1h",
                                 "ttl=1h"}) {
    const absl::StatusOr<CheckpointPolicy> policy = CheckpointPolicy::Parse(text);
    EXPECT_EQ(policy.status().code(), absl::StatusCode::kInvalidArgument) << text;
  }
}

TEST(CheckpointPolicy, Wants) {
  const CheckpointPolicy zero;
  const CheckpointPolicy full = *CheckpointPolicy::Parse("full");
  const CheckpointPolicy mixed = *CheckpointPolicy::Parse("every:384+ends");
  const CheckpointPolicy branches = *CheckpointPolicy::Parse("branches");
  for (uint64_t blocks = 1; blocks <= 12; ++blocks) {
    EXPECT_FALSE(zero.Wants(blocks, true, true));
    EXPECT_TRUE(full.Wants(blocks, false, false));
    EXPECT_EQ(mixed.Wants(blocks, false, true), blocks % 3 == 0) << blocks;
    EXPECT_TRUE(mixed.Wants(blocks, true, false));
    EXPECT_EQ(branches.Wants(blocks, true, false), false);
    EXPECT_TRUE(branches.Wants(blocks, false, true));
  }
  EXPECT_FALSE(full.Wants(0, true, true));
}

TEST(CheckpointPolicy, ACheckpointIsKeptForWhatSurelyWantsIt) {
  const auto ttl = [](const char* text, uint64_t blocks, bool is_branch) {
    return CheckpointPolicy::Parse(text)->TtlAt(blocks, is_branch);
  };
  constexpr char kAll[] = "every:256:ttl=1m+branches:ttl=2m+ends:ttl=3m";
  EXPECT_EQ(ttl(kAll, 2, false), absl::Minutes(1));
  EXPECT_EQ(ttl(kAll, 2, true), absl::Minutes(2));
  EXPECT_EQ(ttl(kAll, 3, true), absl::Minutes(2));
  EXPECT_EQ(ttl(kAll, 3, false), absl::Minutes(3));
  EXPECT_EQ(ttl("full:ttl=1h+ends:ttl=2h", 3, false), absl::Hours(1));
  EXPECT_EQ(ttl("full:ttl=1h+branches", 3, true), absl::InfiniteDuration());
  EXPECT_EQ(ttl("branches:ttl=1h", 3, false), absl::Hours(1));
  EXPECT_EQ(ttl("every:256:ttl=1h", 3, false), absl::InfiniteDuration());
  EXPECT_EQ(ttl("every:256+ends:ttl=1h", 2, false), absl::InfiniteDuration());
}

TEST(CheckpointPolicy, AnEngineIsToldNoTtls) {
  const CheckpointPolicy policy = *CheckpointPolicy::Parse("full:ttl=1s+every:128+ends:ttl=1d");
  EXPECT_TRUE(policy.has_ttl());
  EXPECT_EQ(policy.WithoutTtls().ToString(), "full+every:128+ends");
  EXPECT_FALSE(policy.WithoutTtls().has_ttl());
}

}  // namespace
}  // namespace cairn::cache
