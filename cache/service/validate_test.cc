// Goal: every bound of proto/FIELD_RULES.md is refused by name, one over it, and its last good
// value is accepted.
#include "cache/service/validate.h"

#include <functional>

#include "cache/client/protocol.h"
#include "gtest/gtest.h"
#include "store/base/limits.h"

namespace cairn::cache {
namespace {

const std::string k32(32, 'd');

void ExpectRefused(const absl::Status& status, const std::string& field) {
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << field << ": " << status;
  EXPECT_NE(std::string(status.message()).find(field), std::string::npos) << status;
}

v1::SessionRequest GoodSession() {
  LayoutDescriptor layout;
  layout.model = "m";
  layout.numerics = "plain";
  layout.components = {{"rows", LayoutScope::kPrefix, 4, 32, 64, 8, "x"},
                       {"window", LayoutScope::kTrailing, 1, 128, 40, 0, "x"}};
  v1::SessionRequest request;
  request.set_protocol_version(kProtocolVersion);
  EncodeLayout(layout, request.mutable_layout());
  return request;
}

TEST(Validate, SessionComesBackAsItWasEncoded) {
  const auto spec = DecodeSession(GoodSession());
  ASSERT_TRUE(spec.ok()) << spec.status();
  v1::SessionRequest again;
  again.set_protocol_version(kProtocolVersion);
  EncodeLayout(spec->layout, again.mutable_layout());
  EXPECT_EQ(again.SerializeAsString(), GoodSession().SerializeAsString());
}

TEST(Validate, SessionBounds) {
  const std::vector<std::pair<std::string, std::function<void(v1::SessionRequest&)>>> bad = {
      {"tenant", [](auto& r) { r.set_tenant(std::string(kTenantBytesMax + 1, 't')); }},
      {"layout.model",
       [](auto& r) { r.mutable_layout()->set_model(std::string(kLayoutTextBytesMax + 1, 'm')); }},
      {"layout.model", [](auto& r) { r.mutable_layout()->set_model(""); }},
      {"layout.numerics",
       [](auto& r) {
         r.mutable_layout()->set_numerics(std::string(kLayoutTextBytesMax + 1, 'm'));
       }},
      {"layout.weights", [](auto& r) { r.mutable_layout()->set_weights("short"); }},
      {"layout.components",
       [](auto& r) {
         for (uint32_t i = 0; i < kLayoutComponentsMax; ++i) r.mutable_layout()->add_components();
       }},
      {"layout.components[0].name",
       [](auto& r) {
         r.mutable_layout()->mutable_components(0)->set_name(
             std::string(kComponentTextBytesMax + 1, 'n'));
       }},
      {"layout.components[1].encoding",
       [](auto& r) {
         r.mutable_layout()->mutable_components(1)->set_encoding(
             std::string(kComponentTextBytesMax + 1, 'n'));
       }},
      {"layout.components[1].scope",
       [](auto& r) { r.mutable_layout()->mutable_components(1)->set_scope(3); }},
      {"layout.components[1].scope",
       [](auto& r) { r.mutable_layout()->mutable_components(1)->set_scope(257); }},
      {"layout.components[1].row_bytes",
       [](auto& r) {
         r.mutable_layout()->mutable_components(1)->set_rows(UINT32_MAX);
         r.mutable_layout()->mutable_components(1)->set_row_bytes(UINT32_MAX);
       }},
      {"layout.components[0].rows",
       [](auto& r) { r.mutable_layout()->mutable_components(0)->set_rows(33); }},
  };
  for (const auto& [field, spoil] : bad) {
    v1::SessionRequest request = GoodSession();
    spoil(request);
    ExpectRefused(DecodeSession(request).status(), field);
  }
  v1::SessionRequest request = GoodSession();
  request.set_tenant(std::string(kTenantBytesMax, 't'));
  EXPECT_TRUE(DecodeSession(request).ok());
}

TEST(Validate, AnotherProtocolIsNamed) {
  v1::SessionRequest request = GoodSession();
  request.set_protocol_version(99);
  const absl::Status status = DecodeSession(request).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status));
  EXPECT_NE(std::string(status.message()).find("99"), std::string::npos);
}

TEST(Validate, ALayoutOfAnotherVersionIsLeftToTheCore) {
  v1::SessionRequest request = GoodSession();
  request.mutable_layout()->set_version(kLayoutVersion + 1);
  request.mutable_layout()->mutable_components(0)->set_rows(33);
  EXPECT_TRUE(DecodeSession(request).ok());
}

TEST(Validate, Chain) {
  ExpectRefused(DecodeChain(std::string(33, 'c')).status(), "multiple of 32");
  const std::string most(size_t{kBlocksPerPrefixMax} * 32, 'c');
  EXPECT_EQ(DecodeChain(most)->size(), kBlocksPerPrefixMax);
  ExpectRefused(DecodeChain(most + k32).status(), "65537 blocks");
  EXPECT_TRUE(DecodeChain("")->empty());
}

TEST(Validate, Fetch) {
  v1::FetchRequest request;
  request.set_chain(k32);
  request.set_deadline_millis(kFetchMillisMax);
  EXPECT_TRUE(DecodeFetch(request).ok());
  request.set_deadline_millis(kFetchMillisMax + 1);
  ExpectRefused(DecodeFetch(request).status(), "deadline_millis");
  request.set_deadline_millis(0);
  ExpectRefused(DecodeFetch(request).status(), "deadline_millis");
  request.set_deadline_millis(1);
  request.set_chain("");
  ExpectRefused(DecodeFetch(request).status(), "chain");
}

v1::ReserveRequest GoodReserve() {
  v1::ReserveRequest request;
  v1::ReserveItem* item = request.add_items();
  item->set_digest(k32);
  item->set_parent(k32);
  item->set_kind(1);
  item->set_index(kBlocksPerPrefixMax - 1);
  request.set_wait_millis(kReserveWaitMillisMax);
  return request;
}

TEST(Validate, GroupsOfAFetchAscendWithinTheirBounds) {
  v1::FetchRequest request;
  request.set_chain(std::string(Digest::kBytes, 'd'));
  request.set_deadline_millis(1);
  const auto add = [&](uint32_t rows, uint32_t checkpoint) {
    v1::GroupEnd* end = request.add_groups();
    end->set_rows_bytes(rows);
    end->set_checkpoint_bytes(checkpoint);
  };
  add(0, 7);
  add(0, 7);
  add(kEntryBytesMax, kEntryBytesMax);
  const absl::StatusOr<DecodedFetch> fetch = DecodeFetch(request);
  ASSERT_TRUE(fetch.ok()) << fetch.status();
  EXPECT_EQ(fetch->groups,
            (std::vector<GroupEnd>{{0, 7}, {0, 7}, {kEntryBytesMax, kEntryBytesMax}}));
  add(kEntryBytesMax + 1, kEntryBytesMax);
  ExpectRefused(DecodeFetch(request).status(), "groups");
  for (const auto& [rows, checkpoint] : {std::pair(5, 9), std::pair(6, 8)}) {
    request.clear_groups();
    add(6, 9);
    add(static_cast<uint32_t>(rows), static_cast<uint32_t>(checkpoint));
    ExpectRefused(DecodeFetch(request).status(), "ascend");
  }
  request.clear_groups();
  for (uint32_t i = 0; i < kFetchGroupsMax - 1; ++i) add(i, i);
  EXPECT_TRUE(DecodeFetch(request).ok());
  add(kFetchGroupsMax, kFetchGroupsMax);
  ExpectRefused(DecodeFetch(request).status(), "groups");
}

TEST(Validate, Reserve) {
  const auto good = DecodeReserve(GoodReserve());
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ(good->wait, absl::Minutes(1));
  const std::vector<std::pair<std::string, std::function<void(v1::ReserveRequest&)>>> bad = {
      {"items", [](auto& r) { r.clear_items(); }},
      {"items",
       [](auto& r) {
         for (uint32_t i = 0; i < kReservationsPerSessionMax; ++i) r.add_items();
       }},
      {"wait_millis", [](auto& r) { r.set_wait_millis(kReserveWaitMillisMax + 1); }},
      {"items[0].digest", [](auto& r) { r.mutable_items(0)->set_digest("d"); }},
      {"items[0].parent", [](auto& r) { r.mutable_items(0)->set_parent(k32 + "d"); }},
      {"items[0].kind", [](auto& r) { r.mutable_items(0)->set_kind(0); }},
      {"items[0].kind", [](auto& r) { r.mutable_items(0)->set_kind(258); }},
      {"items[0].index", [](auto& r) { r.mutable_items(0)->set_index(kBlocksPerPrefixMax); }},
  };
  for (const auto& [field, spoil] : bad) {
    v1::ReserveRequest request = GoodReserve();
    spoil(request);
    ExpectRefused(DecodeReserve(request).status(), field);
  }
}

v1::CommitRequest GoodCommit() {
  v1::CommitRequest request;
  v1::CommitItem* item = request.add_items();
  item->add_part_bytes(static_cast<uint32_t>(kEntryBytesMax) - 1);
  item->add_part_bytes(1);
  item->add_part_xxh3(1);
  item->add_part_xxh3(2);
  return request;
}

TEST(Validate, Commit) {
  const auto good = DecodeCommit(GoodCommit());
  ASSERT_TRUE(good.ok()) << good.status();
  EXPECT_EQ((*good)[0].payload_bytes, kEntryBytesMax);
  EXPECT_TRUE(DecodeStreamedCommit(GoodCommit()).ok());
  const std::vector<std::pair<std::string, std::function<void(v1::CommitRequest&)>>> bad = {
      {"items", [](auto& r) { r.clear_items(); }},
      {"items",
       [](auto& r) {
         for (uint32_t i = 0; i < kEntriesPerCommitMax; ++i) r.add_items();
       }},
      {"items[0].part_bytes", [](auto& r) { r.mutable_items(0)->set_part_bytes(1, 2); }},
      {"items[0].part_bytes",
       [](auto& r) {
         // Their sum wraps 32 bits.
         r.mutable_items(0)->set_part_bytes(0, UINT32_MAX);
         r.mutable_items(0)->set_part_bytes(1, 2);
       }},
      {"items[0].part_bytes",
       [](auto& r) {
         r.mutable_items(0)->set_part_bytes(0, 0);
         r.mutable_items(0)->set_part_bytes(1, 0);
       }},
      {"items[0].part_xxh3", [](auto& r) { r.mutable_items(0)->add_part_xxh3(1); }},
      {"items[0].part_bytes",
       [](auto& r) {
         r.mutable_items(0)->clear_part_bytes();
         r.mutable_items(0)->clear_part_xxh3();
       }},
      {"items[0].part_bytes",
       [](auto& r) {
         r.mutable_items(0)->clear_part_bytes();
         r.mutable_items(0)->clear_part_xxh3();
         for (uint32_t i = 0; i <= kPartsPerEntryMax; ++i) {
           r.mutable_items(0)->add_part_bytes(1);
           r.mutable_items(0)->add_part_xxh3(1);
         }
       }},
  };
  for (const auto& [field, spoil] : bad) {
    v1::CommitRequest request = GoodCommit();
    spoil(request);
    ExpectRefused(DecodeCommit(request).status(), field);
  }
  v1::CommitRequest two = GoodCommit();
  *two.add_items() = two.items(0);
  EXPECT_TRUE(DecodeCommit(two).ok());
  ExpectRefused(DecodeStreamedCommit(two).status(), "bytes of payload");
}

TEST(Validate, AbortAndRelease) {
  v1::AbortRequest abort;
  for (uint32_t i = 0; i < kReservationsPerSessionMax; ++i) abort.add_reservations(i);
  EXPECT_TRUE(ValidateAbort(abort).ok());
  abort.add_reservations(1);
  ExpectRefused(ValidateAbort(abort), "reservations");
  v1::ReleaseRequest release;
  for (uint32_t i = 0; i < kLeasesPerSessionMax; ++i) release.add_leases(i);
  EXPECT_TRUE(ValidateRelease(release).ok());
  release.add_leases(1);
  ExpectRefused(ValidateRelease(release), "leases");
}

TEST(Validate, Operators) {
  v1::Filter filter;
  EXPECT_TRUE(DecodeFilter(filter)->empty());
  filter.set_prefix("abc");
  ExpectRefused(DecodeFilter(filter).status(), "filter.prefix");
  filter.set_prefix("abcd");
  EXPECT_TRUE(DecodeFilter(filter).ok());
  filter.set_prefix(k32 + "d");
  ExpectRefused(DecodeFilter(filter).status(), "filter.prefix");
  filter.clear_prefix();
  filter.set_namespace_root("short");
  ExpectRefused(DecodeFilter(filter).status(), "filter.namespace_root");
  filter.clear_namespace_root();
  filter.set_unused_for_seconds(UINT64_MAX);
  ExpectRefused(DecodeFilter(filter).status(), "filter.unused_for_seconds");
  filter.set_unused_for_seconds(0);
  EXPECT_EQ(DecodeFilter(filter)->unused_for, absl::ZeroDuration());
  EXPECT_FALSE(DecodeFilter(filter)->empty());

  v1::ListRequest list;
  EXPECT_EQ(*DecodeListLimit(list), 1000u);
  list.set_limit(kListEntriesMax);
  EXPECT_TRUE(DecodeListLimit(list).ok());
  list.set_limit(kListEntriesMax + 1);
  ExpectRefused(DecodeListLimit(list).status(), "limit");

  v1::FlushRequest flush;
  flush.set_deadline_millis(kFlushMillisMax + 1);
  ExpectRefused(DecodeFlush(flush).status(), "deadline_millis");
}

}  // namespace
}  // namespace cairn::cache
