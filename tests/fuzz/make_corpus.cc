// Writes the first inputs of every target into FOLDER/<target>/seed-*: what the real encoders make,
// so that a fuzzer begins behind the doors that it would hardly find. Run it after a format
// changes; what fuzzers found since lies beside the seeds and stays.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "cache/client/attach_protocol.h"
#include "cache/client/bulk_protocol.h"
#include "cache/client/protocol.h"
#include "cache/core/attributes.h"
#include "cairn/v1/admin.pb.h"
#include "engine/model/config.h"
#include "engine/model/presets.h"
#include "store/base/checksum.h"
#include "store/index/catalog_codec.h"
#include "store/segment/record_format.h"
#include "tests/fuzz/segment_image.h"

namespace cairn {
namespace {

using fuzz::SegmentImage;

std::string g_folder;

void Seed(const std::string& target, const std::string& name, const std::string& bytes) {
  const std::filesystem::path folder = std::filesystem::path(g_folder) / target;
  std::filesystem::create_directories(folder);
  std::ofstream file(folder / ("seed-" + name), std::ios::binary);
  file << bytes;
  FUZZ_CHECK(file.good());
}

template <typename T>
std::string Raw(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}
std::string Byte(int value) { return std::string(1, static_cast<char>(value)); }
std::string WithLength(const std::string& text) {
  return Byte(static_cast<int>(text.size())) + text;
}
// Targets read zeroes behind an input's end.
std::string WithoutTail(std::string bytes) {
  bytes.resize(bytes.find_last_not_of('\0') + 1);
  return bytes;
}

store::CatalogEntry Entry(size_t parts) {
  store::CatalogEntry entry;
  entry.meta.key.digest.bytes.fill(0xd1);
  for (size_t i = 0; i < parts; ++i) {
    entry.meta.parts.push_back({.bytes = static_cast<uint32_t>(100 + i), .xxh3 = 17 * i});
  }
  entry.meta.attributes = "attributes";
  entry.location = {.segment = 7, .offset = 8192, .bytes = 0, .sequence = 3};
  entry.location.bytes = store::RecordBytes(entry.meta);
  return entry;
}

void StoreSeeds() {
  const store::StoreUuid uuid = {1, 2, 3};
  std::string page(kIoAlignment, '\0');
  const std::span<uint8_t> page_bytes(reinterpret_cast<uint8_t*>(page.data()), page.size());
  store::EncodeSegmentHeader({.segment = 7, .tag = store::SegmentTag(uuid, 7), .store = uuid},
                             page_bytes);
  Seed("record", "segment", Byte(0) + WithoutTail(page));
  Seed("record", "segment-cut", Byte(8) + page.substr(0, 64));
  for (const size_t parts : {size_t{1}, size_t{3}, size_t{kPartsPerEntryMax}}) {
    const store::CatalogEntry entry = Entry(parts);
    std::string header(store::RecordHeaderBytes(entry.meta), '\0');
    store::EncodeRecordHeader(entry.meta, entry.location, store::SegmentTag(uuid, 7),
                              {reinterpret_cast<uint8_t*>(header.data()), header.size()});
    const std::string name = std::to_string(parts);
    Seed("record", "record-" + name, Byte(1) + WithoutTail(header));
    Seed("record", "sealed-" + name, Byte(7) + WithoutTail(header));
    const std::string key = WithLength(store::EncodeEntryKey(entry.meta.key));
    const std::string value = store::EncodeEntryValue(entry);
    Seed("catalog_value", "entry-" + name, Byte(0) + key + value);
    Seed("catalog_value", "sealed-" + name, Byte(1) + key + value.substr(0, value.size() - 8));
  }
  const std::string record = Byte(SegmentImage::kRecord) + Byte(1) + Byte(1) + Byte(1) +
                             Raw<uint16_t>(5000) + Raw<uint16_t>(30);
  const std::string newer =
      Byte(SegmentImage::kRecord) + Byte(1) + Byte(2) + Byte(0) + Raw<uint16_t>(90);
  const std::string flip = Byte(SegmentImage::kFlip) + Byte(1) + Raw<uint16_t>(60) + Byte(3);
  const std::string copy = Byte(SegmentImage::kCopy) + Byte(9) + Byte(1);
  const std::string seal = Byte(SegmentImage::kSeal) + Byte(1);
  const std::string skip = Byte(SegmentImage::kSkip) + Byte(2);
  const std::string end = Byte(SegmentImage::kEnd);
  for (const auto& [name, steps] : {std::pair<std::string, std::string>{"whole", record + newer},
                                    {"gap", record + skip + newer},
                                    {"flipped", record + newer + flip},
                                    {"sealed", record + newer + flip + seal},
                                    {"copied", record + newer + copy}}) {
    Seed("segment_scan", name, Byte(0) + steps);
    const std::string segments = Byte(1) + Byte(0) + steps + end + Byte(2) + Byte(0) + record;
    const std::string mark = Raw<uint64_t>(2) + Raw<uint64_t>(8192) + Raw<uint64_t>(2);
    Seed("recovery", name + "-new", Byte(0) + WithLength("") + segments);
    Seed("recovery", name + "-rebuilt", Byte(1 + 64) + WithLength("") + segments);
    Seed("recovery", name + "-tail", Byte(1 + 4 + 16) + WithLength("") + mark + segments);
  }
  const std::string format = "cairn store\nversion 1\nuuid 01020300000000000000000000000000\n";
  Seed("recovery", "format", Byte(3) + WithLength(format));
  Seed("recovery", "format-2", Byte(3) + WithLength("cairn store\nversion 2\n"));
}

cache::LayoutDescriptor Layout() {
  cache::LayoutDescriptor layout;
  layout.model = "m";
  layout.numerics = "plain";
  layout.components = {{"a", cache::LayoutScope::kPrefix, 4, 32, 2, 0, "x"},
                       {"b", cache::LayoutScope::kPrefix, 128, 1, 7, 0, "x"},
                       {"w", cache::LayoutScope::kTrailing, 1, 128, 1, 0, "x"}};
  return layout;
}

void TextSeeds() {
  Seed("attributes", "first", cache::EncodeAttributes({}));
  cache::EntryAttributes later;
  later.index = 9;
  later.parent.bytes.fill(3);
  Seed("attributes", "later", cache::EncodeAttributes(later));
  int number = 0;
  for (const char* text : {"zero", "full", "ends", "every:4096", "full+every:128+ends", "branches",
                           "every:4096:ttl=10m+branches:ttl=1h+ends:ttl=3d"}) {
    Seed("policy_text", std::to_string(++number), text);
  }
  const cache::BulkPreamble preamble =
      cache::EncodeBulkPreamble(std::string(cache::kTicketBytes, 't'));
  Seed("bulk_preamble", "ticket", std::string(preamble.begin(), preamble.end()));
  std::string layout = Byte(0) + WithLength("m") + WithLength("plain");
  for (const cache::LayoutComponent& c : Layout().components) {
    layout += WithLength(c.name) + Byte(static_cast<int>(c.scope)) +
              Byte(static_cast<int>(c.tokens_per_row)) + Byte(static_cast<int>(c.rows)) +
              Raw<uint32_t>(c.row_bytes) + Byte(0) + Byte(c.name == "w" ? 50 : 0);
  }
  Seed("layout", "three", layout);
}

void RequestSeeds() {
  const std::string digest(Digest::kBytes, 'd');
  const std::string token(cache::kTokenBytes, 't');
  const auto seed = [](int which, const std::string& name, const google::protobuf::Message& m) {
    Seed("request", name, Byte(which) + m.SerializeAsString());
  };
  v1::SessionRequest session;
  session.set_protocol_version(cache::kProtocolVersion);
  session.set_tenant("a");
  cache::EncodeLayout(Layout(), session.mutable_layout());
  session.mutable_layout()->set_weights(digest);
  seed(0, "session", session);
  v1::MatchRequest match;
  match.set_token(token);
  match.set_chain(digest + digest);
  match.set_lease_host(true);
  seed(1, "match", match);
  v1::FetchRequest fetch;
  fetch.set_token(token);
  fetch.set_chain(digest);
  fetch.set_checkpoint(true);
  fetch.set_deadline_millis(1000);
  seed(2, "fetch", fetch);
  for (const uint32_t end : {64, 128}) {
    fetch.add_groups()->set_rows_bytes(end);
    fetch.mutable_groups(fetch.groups_size() - 1)->set_checkpoint_bytes(2 * end);
  }
  seed(2, "fetch-groups", fetch);
  v1::ReserveRequest reserve;
  reserve.set_token(token);
  reserve.set_wait_millis(10);
  v1::ReserveItem* item = reserve.add_items();
  item->set_digest(digest);
  item->set_parent(digest);
  item->set_kind(2);
  item->set_index(5);
  seed(3, "reserve", reserve);
  v1::CommitChunk commit;
  commit.mutable_head()->set_token(token);
  v1::CommitItem* committed = commit.mutable_head()->add_items();
  committed->set_reservation(1);
  for (const uint32_t bytes : {64u, 7u}) {
    committed->add_part_bytes(bytes);
    committed->add_part_xxh3(bytes);
  }
  seed(4, "commit", commit.head());
  seed(5, "commit-head", commit);
  commit.set_data("payload");
  seed(5, "commit-data", commit);
  v1::AbortRequest abort;
  abort.add_reservations(1);
  seed(6, "abort", abort);
  v1::ReleaseRequest release;
  release.add_leases(300);
  seed(7, "release", release);
  v1::ListRequest list;
  list.set_limit(10);
  list.mutable_filter()->set_prefix(digest.substr(0, 4));
  list.mutable_filter()->set_namespace_root(digest);
  list.mutable_filter()->set_unused_for_seconds(60);
  seed(8, "filter", list.filter());
  seed(9, "list", list);
  v1::PinRequest pin;
  pin.set_digest(digest);
  seed(10, "pin", pin);
  v1::FlushRequest flush;
  flush.set_deadline_millis(1000);
  seed(11, "flush", flush);
}

void AttachSeeds() {
  cache::AttachRequest request;
  for (const auto& [name, kind, flags] : {std::tuple{"arena", cache::AttachKind::kArena, 1},
                                          {"staging", cache::AttachKind::kStaging, 1 + 2},
                                          {"unsealed", cache::AttachKind::kStaging, 1 + 4},
                                          {"gpu-pool", cache::AttachKind::kGpuPool, 1}}) {
    request.kind = static_cast<uint32_t>(kind);
    request.bytes = 2 * kIoAlignment;
    Seed("attach", name, Byte(flags) + Raw(request));
  }
  cache::AttachAnswer answer;
  answer.bytes = 2 * kIoAlignment;
  Seed("attach_answer", "arena", Byte(2) + Raw(answer));
  Seed("attach_answer", "gpu-pool", Byte(0x80 + 2) + Raw(answer));
  Seed("attach_answer", "gpu-pool-by-handle", Byte(0x80) + Raw(answer));
  answer.staging = 3;
  Seed("attach_answer", "piece", Byte(1) + Raw(answer));
  answer.code = 8;
  answer.message = {'f', 'u', 'l', 'l'};
  Seed("attach_answer", "refused", Byte(1) + Raw(answer));
}

void LookupSeeds() {
  const auto message = [](uint32_t number, uint32_t code, const std::string& body) {
    const std::string whole = Raw(cache::LookupAnswer{.number = number, .code = code}) + body;
    return Raw(static_cast<uint16_t>(whole.size())) + whole;
  };
  v1::MatchResponse found;
  found.set_rows_blocks(3);
  found.add_checkpoints()->set_blocks(2);
  found.mutable_leased()->add_offsets(4096);
  Seed("lookup_answer", "found", message(1, 0, found.SerializeAsString()));
  Seed("lookup_answer", "late",
       message(0, 0, found.SerializeAsString()) + message(1, 0, found.SerializeAsString()));
  Seed("lookup_answer", "refused", message(1, 10, "the session is over"));
}

void FillExtent(v1::Extent* out, const std::vector<uint32_t>& parts, std::string& payloads) {
  uint64_t bytes = 0;
  for (const uint32_t part : parts) {
    const std::vector<uint8_t> payload(part, 'p');
    out->add_part_xxh3(Checksum(payload));
    payloads.append(payload.begin(), payload.end());
    bytes += part;
  }
  out->set_payload_bytes(bytes);
}

void AnswerSeeds() {
  const auto seed = [](int which, int asked, const std::string& name,
                       const google::protobuf::Message& m) {
    Seed("answer", name, Byte(which) + Byte(asked) + m.SerializeAsString());
  };
  v1::Registration registration;
  registration.set_protocol_version(cache::kProtocolVersion);
  registration.set_layout_version(cache::kLayoutVersion);
  registration.set_token(std::string(cache::kTokenBytes, 't'));
  registration.set_root(std::string(Digest::kBytes, 'r'));
  registration.set_policy("every:4096+ends");
  registration.set_attach_socket("cairn.sock.fd");
  registration.set_bulk_port(1234);
  registration.set_gpu_bytes(1 << 20);
  seed(0, 0, "registration", registration);
  v1::MatchResponse match;
  match.set_rows_blocks(2);
  match.set_rows_host_blocks(2);
  match.add_checkpoints()->set_blocks(2);
  match.mutable_checkpoints(0)->set_tier(1);
  for (const uint64_t offset : {0, 4096, 8192}) {
    match.mutable_leased()->add_offsets(offset);
    match.mutable_leased()->add_table_xxh3(offset + 1);
  }
  match.mutable_leased()->set_checkpoint(true);
  seed(1, 4, "match", match);
  seed(9, 2, "mapped", match.leased());
  for (const uint64_t offset : {8192, 4096, 0}) match.mutable_leased()->add_gpu_offsets(offset);
  seed(1, 4, "match-gpu", match);
  const cache::EntryShapes shapes(Layout());
  v1::FetchChunk chunk;
  std::string payloads;
  FillExtent(chunk.mutable_head()->add_rows(), shapes.rows, payloads);
  FillExtent(chunk.mutable_head()->add_rows(), shapes.rows, payloads);
  FillExtent(chunk.mutable_head()->mutable_checkpoint(), shapes.checkpoint, payloads);
  for (const bool grouped : {true, false}) {
    chunk.mutable_head()->set_grouped(grouped);
    const std::string head = chunk.head().SerializeAsString();
    Seed("answer", grouped ? "fetch-grouped" : "fetch",
         Byte(10) + Byte(2) + Raw(static_cast<uint16_t>(head.size())) + head + payloads);
  }
  Seed("stream_message", "head", Byte(1) + chunk.SerializeAsString());
  chunk.set_data("some data");
  Seed("stream_message", "data", Byte(0) + chunk.SerializeAsString());
  chunk.set_data(std::string(200, 'd'));
  Seed("stream_message", "cut-data", Byte(2) + chunk.SerializeAsString());
  v1::ReserveResponse reserve;
  reserve.add_results()->set_state(2);
  reserve.mutable_results(0)->set_reservation(9);
  seed(4, 1, "reserve", reserve);
  v1::CommitResponse commit;
  commit.add_statuses()->set_code(15);
  commit.mutable_statuses(0)->set_message("part 1");
  seed(5, 1, "commit", commit);
  v1::StatsResponse stats;
  stats.add_counts()->set_name("host_used_bytes");
  seed(6, 0, "stats", stats);
  for (const int flags : {2 + 4 + 8, 1 + 2 + 4 + 8, 0}) {
    Seed("entry_view", std::to_string(flags),
         Byte(flags) + Byte(2) + Raw<uint16_t>(3) + Raw<uint16_t>(5) + Raw<uint16_t>(8) +
             Raw<uint64_t>(0) + std::string(16, '\1') + "payload!");
  }
}

void ModelSeeds() {
  const std::string tensors = R"({"tokens":{"dtype":"I32","shape":[2],"data_offsets":[0,8]},)"
                              R"("w":{"dtype":"BF16","shape":[1,2],"data_offsets":[8,12]}})";
  const auto file = [](const std::string& header, const std::string& data) {
    return Byte(1) + Raw(static_cast<uint16_t>(header.size())) + header + data;
  };
  Seed("safetensors", "two", file(tensors, std::string(12, '\1')));
  Seed("safetensors", "whole",
       Byte(0) + Raw(static_cast<uint64_t>(tensors.size())) + tensors + std::string(12, '\1'));
  Seed("safetensors", "no-tokens",
       file(R"({"tokens":{"dtype":"I32","shape":[0],"data_offsets":[0,0]}})", ""));
  const absl::StatusOr<engine::ModelConfig> nano = engine::PresetConfig("nano");
  FUZZ_CHECK_OK(nano.status());
  Seed("config", "card", engine::ModelCardJson(*nano, /*quantised=*/true));
  Seed("tokenizer", "bytes", Raw<uint16_t>(259) + "some text");
  Seed("tokenizer", "marks", Raw<uint16_t>(300) + Raw<uint32_t>(257) + Raw<uint32_t>(299));
}

void ApiSeeds() {
  Seed("api_request", "completion",
       R"({"model": "nano", "prompt": ["a"], "temperature": 0.5, "top_p": 0.9, "top_k": 4,)"
       R"( "min_p": 0.1, "seed": 1, "logit_bias": {"5": -1}, "stop": ["x", "y"],)"
       R"( "stop_token_ids": [7], "max_tokens": 3, "logprobs": 2, "stream": true,)"
       R"( "stream_options": {"include_usage": true}})");
  Seed("api_request", "tokens", R"({"model": "nano", "prompt": [1, 2, 299], "stop": "x"})");
  Seed("api_request", "chat",
       R"({"model": "nano", "messages": [{"role": "user", "content": "a"}],)"
       R"( "thinking": {"type": "enabled"}, "reasoning_effort": "max", "logprobs": true,)"
       R"( "top_logprobs": 3})");
  Seed("api_request", "tools",
       R"({"model": "nano", "tools": [{"type": "function", "function": {"name": "f"}}],)"
       R"( "tool_choice": "auto", "messages": [{"role": "system", "content": "s"},)"
       R"( {"role": "user", "content": [{"type": "text", "text": "a"}]},)"
       R"( {"role": "assistant", "content": null, "reasoning_content": "r", "tool_calls":)"
       R"( [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},)"
       R"( {"role": "tool", "tool_call_id": "1", "content": "b"}]})");
}

}  // namespace
}  // namespace cairn

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
    return 2;
  }
  cairn::g_folder = argv[1];
  cairn::StoreSeeds();
  cairn::TextSeeds();
  cairn::RequestSeeds();
  cairn::AttachSeeds();
  cairn::LookupSeeds();
  cairn::AnswerSeeds();
  cairn::ModelSeeds();
  cairn::ApiSeeds();
  return 0;
}
