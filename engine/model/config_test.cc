// Both spellings must give the same config, every field must be bounded, and whatever would make
// another architecture must be refused by name: a field that is read wrongly costs wrong output,
// not an error.
#include "engine/model/config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <nlohmann/json.hpp>

#include "engine/model/config_fields.h"
#include "engine/model/presets.h"
#include "engine/model/test_files.h"

namespace cairn::engine {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

// The published V4-Flash config.json, without what says nothing about the shape.
json FlashCard() {
  json config = json::parse(R"({
    "model_type": "deepseek_v4", "hidden_size": 4096, "num_hidden_layers": 43,
    "num_attention_heads": 64, "num_key_value_heads": 1, "head_dim": 512, "qk_rope_head_dim": 64,
    "q_lora_rank": 1024, "o_lora_rank": 1024, "o_groups": 8, "sliding_window": 128,
    "index_n_heads": 64, "index_head_dim": 128, "index_topk": 512, "n_routed_experts": 256,
    "n_shared_experts": 1, "num_experts_per_tok": 6, "moe_intermediate_size": 2048,
    "scoring_func": "sqrtsoftplus", "topk_method": "noaux_tc", "norm_topk_prob": true,
    "routed_scaling_factor": 1.5, "num_hash_layers": 3, "swiglu_limit": 10.0, "hc_mult": 4,
    "hc_sinkhorn_iters": 20, "hc_eps": 1e-6, "rms_norm_eps": 1e-6, "rope_theta": 10000,
    "compress_rope_theta": 160000, "max_position_embeddings": 1048576, "vocab_size": 129280,
    "rope_scaling": {"type": "yarn", "factor": 16, "original_max_position_embeddings": 65536,
                     "beta_fast": 32, "beta_slow": 1},
    "num_nextn_predict_layers": 1, "hidden_act": "silu", "attention_bias": false,
    "attention_dropout": 0.0, "tie_word_embeddings": false, "bos_token_id": 0, "expert_dtype": "fp4",
    "quantization_config": {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic",
                            "scale_fmt": "ue8m0", "weight_block_size": [128, 128]}})");
  config["compress_ratios"] = {0, 0};
  for (int i = 0; i < 20; ++i) {
    config["compress_ratios"].push_back(4);
    config["compress_ratios"].push_back(128);
  }
  config["compress_ratios"].push_back(4);
  config["compress_ratios"].push_back(0);
  return config;
}

// The same in the reference's spelling, by the table of section 1 of the specification.
json FlashReference() {
  const std::map<std::string, std::string> names = {{"hidden_size", "dim"},
                                                    {"num_hidden_layers", "n_layers"},
                                                    {"num_attention_heads", "n_heads"},
                                                    {"qk_rope_head_dim", "rope_head_dim"},
                                                    {"sliding_window", "window_size"},
                                                    {"num_experts_per_tok", "n_activated_experts"},
                                                    {"moe_intermediate_size", "moe_inter_dim"},
                                                    {"scoring_func", "score_func"},
                                                    {"routed_scaling_factor", "route_scale"},
                                                    {"num_hash_layers", "n_hash_layers"},
                                                    {"rms_norm_eps", "norm_eps"},
                                                    {"max_position_embeddings", "max_seq_len"},
                                                    {"num_nextn_predict_layers", "n_mtp_layers"}};
  const json card = FlashCard();
  json out;
  for (const auto& [key, value] : card.items()) {
    if (key == "rope_scaling" || key == "quantization_config") continue;
    const auto renamed = names.find(key);
    out[renamed == names.end() ? key : renamed->second] = value;
  }
  out["rope_factor"] = 16;
  out["original_seq_len"] = 65536;
  out["beta_fast"] = 32;
  out["beta_slow"] = 1;
  out["max_batch_size"] = 8;
  out["dtype"] = "fp8";
  out["scale_fmt"] = "ue8m0";
  return out;
}

absl::StatusOr<ModelConfig> Parse(const json& config) {
  return ParseConfig(config.dump(), "config.json");
}

void ExpectBad(const json& config, const std::string& fragment) {
  const absl::Status status = Parse(config).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(fragment));
  EXPECT_THAT(std::string(status.message()), HasSubstr("config.json: "));
}

void ExpectBadCard(const json& patch, const std::string& fragment) {
  json config = FlashCard();
  config.merge_patch(patch);
  ExpectBad(config, fragment);
}

TEST(Config, ReadsTheModelCard) {
  const absl::StatusOr<ModelConfig> config = Parse(FlashCard());
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->vocab, 129280);
  EXPECT_EQ(config->dim, 4096);
  EXPECT_EQ(config->layers, 43);
  EXPECT_EQ(config->mtp_layers, 1);
  EXPECT_EQ(config->heads, 64);
  EXPECT_EQ(config->head_dim, 512);
  EXPECT_EQ(config->rope_dim, 64);
  EXPECT_EQ(config->q_lora, 1024);
  EXPECT_EQ(config->o_lora, 1024);
  EXPECT_EQ(config->o_groups, 8);
  EXPECT_EQ(config->window, 128);
  EXPECT_EQ(config->index_heads, 64);
  EXPECT_EQ(config->index_dim, 128);
  EXPECT_EQ(config->index_topk, 512);
  EXPECT_EQ(config->experts, 256);
  EXPECT_EQ(config->experts_per_token, 6);
  EXPECT_EQ(config->expert_dim, 2048);
  EXPECT_EQ(config->hash_layers, 3);
  EXPECT_EQ(config->route_scale, 1.5);
  EXPECT_EQ(config->swiglu_limit, 10.0);
  EXPECT_EQ(config->hc, 4);
  EXPECT_EQ(config->hc_sinkhorn_iters, 20);
  EXPECT_EQ(config->rope_theta, 10000.0);
  EXPECT_EQ(config->compress_rope_theta, 160000.0);
  EXPECT_EQ(config->rope_factor, 16.0);
  EXPECT_EQ(config->rope_original_len, 65536);
  EXPECT_EQ(config->max_positions, 1048576);
  EXPECT_EQ(config->ratio(0), 0);
  EXPECT_EQ(config->ratio(2), 4);
  EXPECT_EQ(config->ratio(3), 128);
  EXPECT_EQ(config->ratio(43), 0);
}

TEST(Config, BothSpellingsAreTheSame) {
  const absl::StatusOr<ModelConfig> card = Parse(FlashCard()), reference = Parse(FlashReference());
  ASSERT_TRUE(card.ok()) << card.status();
  ASSERT_TRUE(reference.ok()) << reference.status();
  EXPECT_EQ(card->Canonical(), reference->Canonical());
  EXPECT_EQ(card->max_positions, reference->max_positions);
}

TEST(Config, ReadsTheGoldenSets) {
  for (const char* set : {"nano-plain", "nano-kvq"}) {
    const auto config = LoadConfig(std::string("tests/golden/") + set);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->layers, 5);
    EXPECT_EQ(config->max_positions, 1024);
    EXPECT_EQ(config->norm_eps, 1e-6) << "the files do not name it";
  }
}

TEST(Config, WhatIsWrittenReadsBack) {
  for (const char* preset : {"nano", "mini", "small"}) {
    for (const bool quantised : {false, true}) {
      const ModelConfig config = PresetConfig(preset).value();
      const auto back = ParseConfig(ModelCardJson(config, quantised), preset);
      ASSERT_TRUE(back.ok()) << back.status();
      EXPECT_EQ(back->Canonical(), config.Canonical());
      EXPECT_EQ(back->max_positions, config.max_positions);
    }
  }
}

TEST(Config, WithoutYarnItsFieldsTellNothingApart) {
  nlohmann::json plain = FlashReference();
  plain["original_seq_len"] = 0;
  nlohmann::json other = plain;
  other["beta_fast"] = 40;
  other["rope_factor"] = 2;
  const absl::StatusOr<ModelConfig> a = Parse(plain), b = Parse(other);
  ASSERT_TRUE(a.ok() && b.ok()) << a.status() << b.status();
  EXPECT_EQ(a->Canonical(), b->Canonical());
  nlohmann::json card = FlashCard();
  card["rope_scaling"]["original_max_position_embeddings"] = 0;
  EXPECT_EQ(Parse(card)->Canonical(), a->Canonical());
}

TEST(Config, CanonicalTextTellsEveryFieldApartButTheLength) {
  const ModelConfig config = PresetConfig("mini").value();
  for (const auto& field : kIntFields) {
    ModelConfig other = config;
    other.*field.member += 1;
    const bool same = config.Canonical() == other.Canonical();
    EXPECT_EQ(same, field.member == &ModelConfig::max_positions) << field.card;
  }
  for (const auto& field : kRealFields) {
    ModelConfig other = config;
    other.*field.member *= 1.0 + 1e-15;
    EXPECT_NE(config.Canonical(), other.Canonical()) << field.card;
  }
  ModelConfig other = config;
  other.compress_ratios[3] = 4;
  EXPECT_NE(config.Canonical(), other.Canonical());
}

TEST(Config, EveryFieldIsBounded) {
  const auto set = [](json config, const std::string& key, const json& value) {
    const size_t dot = key.find('.');
    (dot == std::string::npos ? config[key] : config[key.substr(0, dot)][key.substr(dot + 1)]) =
        value;
    return config;
  };
  const auto check = [&](const auto& field) {
    using T = decltype(field.least);
    const T below = static_cast<T>(field.least - 1), above = static_cast<T>(field.most * 2 + 1);
    for (const T value : {below, above}) {
      ExpectBad(set(FlashCard(), field.card, value), field.card);
      ExpectBad(set(FlashReference(), field.reference, value), field.reference);
    }
    for (const json& value : {json("7"), json(true), json(nullptr), json::array()}) {
      ExpectBad(set(FlashCard(), field.card, value), field.card);
    }
    ExpectBad(set(FlashCard(), field.card, 18446744073709551615u), field.card);
  };
  for (const auto& field : kIntFields) {
    // Below zero of the original length the reference's file just has no YaRN to speak of.
    check(field);
    ExpectBad(set(FlashCard(), field.card, 2.5), field.card);
  }
  for (const auto& field : kRealFields) check(field);
}

TEST(Config, MissingFieldsAreNamed) {
  for (const auto& field : kIntFields) {
    if (field.presence == Presence::kOptional || field.presence == Presence::kYarnOptional)
      continue;
    json config = FlashCard();
    const std::string key = field.card;
    const size_t dot = key.find('.');
    if (dot == std::string::npos) {
      config.erase(key);
    } else {
      config[key.substr(0, dot)].erase(key.substr(dot + 1));
    }
    ExpectBad(config, key == "hidden_size" ? "neither hidden_size" : key + " is missing");
  }
  ExpectBadCard({{"compress_ratios", nullptr}}, "compress_ratios is missing");
  ExpectBadCard({{"routed_scaling_factor", nullptr}}, "routed_scaling_factor is missing");
  ExpectBadCard({{"dim", 4096}}, "both hidden_size and dim");
}

TEST(Config, OtherArchitecturesAreRefused) {
  ExpectBadCard({{"model_type", "deepseek_v3"}}, "model_type is \"deepseek_v3\"");
  ExpectBadCard({{"hidden_act", "gelu"}}, "hidden_act");
  ExpectBadCard({{"attention_bias", true}}, "attention_bias");
  ExpectBadCard({{"tie_word_embeddings", true}}, "tie_word_embeddings");
  ExpectBadCard({{"num_key_value_heads", 8}}, "num_key_value_heads");
  ExpectBadCard({{"scoring_func", "sigmoid"}}, "scoring_func");
  ExpectBadCard({{"topk_method", "greedy"}}, "topk_method");
  ExpectBadCard({{"norm_topk_prob", false}}, "norm_topk_prob");
  ExpectBadCard({{"n_group", 8}}, "n_group");
  ExpectBadCard({{"first_k_dense_replace", 3}}, "first_k_dense_replace");
  ExpectBadCard({{"expert_dtype", "int4"}}, "expert_dtype");
  ExpectBadCard({{"rope_scaling", {{"type", "linear"}}}}, "rope_scaling.type");
  ExpectBadCard({{"rope_scaling", {{"type", nullptr}}}}, "rope_scaling.type is missing");
  ExpectBadCard({{"rope_scaling", {{"mscale", 1.277}}}}, "rope_scaling.mscale");
  ExpectBadCard({{"rope_parameters", {{"main", {}}}}}, "rope_parameters");
  ExpectBadCard({{"quantization_config", {{"scale_fmt", "float"}}}}, "scale_fmt");
  ExpectBadCard({{"quantization_config", {{"weight_block_size", {64, 64}}}}}, "weight_block_size");
  json reference = FlashReference();
  reference["score_func"] = "softmax";
  ExpectBad(reference, "score_func");
}

TEST(Config, FieldsMustAgree) {
  ExpectBadCard({{"qk_rope_head_dim", 63}}, "even");
  ExpectBadCard({{"qk_rope_head_dim", 1024}}, "must not exceed head_dim");
  ExpectBadCard({{"index_head_dim", 32}}, "must not exceed index_head_dim");
  ExpectBadCard({{"index_head_dim", 96}}, "power of two");
  ExpectBadCard({{"o_groups", 7}}, "multiple of o_groups");
  ExpectBadCard({{"n_routed_experts", 5}}, "must not exceed n_routed_experts");
  ExpectBadCard({{"num_hidden_layers", 2}, {"compress_ratios", {0, 0, 0}}}, "num_hash_layers");
  ExpectBadCard({{"rope_scaling", {{"beta_slow", 64}}}}, "beta_fast");
  ExpectBadCard({{"compress_ratios", {0, 4, 128}}}, "43 layers and 1 MTP blocks need 44");
  ExpectBadCard({{"compress_ratios", "all"}}, "not a list");
  json config = FlashCard();
  config["compress_ratios"][7] = 8;
  ExpectBad(config, "compress_ratios [7] is 8");
  config = FlashCard();
  config["compress_ratios"][43] = 4;
  ExpectBad(config, "MTP block");
}

TEST(Config, WithoutYarn) {
  json card = FlashCard(), reference = FlashReference();
  card.erase("rope_scaling");
  reference["original_seq_len"] = 0;
  for (const json& config : {card, reference}) {
    const auto parsed = Parse(config);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->rope_original_len, 0);
    EXPECT_EQ(parsed->rope_factor, 1.0);
  }
}

TEST(Config, TheLengthMayBeImplied) {
  json reference = FlashReference();
  reference.erase("max_seq_len");
  EXPECT_EQ(Parse(reference)->max_positions, 1048576);
  reference["original_seq_len"] = 0;
  ExpectBad(reference, "max_seq_len is missing");
}

TEST(Config, AnMtpEntryMayBeListedWithoutTheBlock) {
  json card = FlashCard();
  card["num_nextn_predict_layers"] = 0;
  const auto parsed = Parse(card);
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->compress_ratios.size(), 43u);
}

TEST(Config, FilesThatAreNotAConfig) {
  EXPECT_EQ(LoadConfig("tests/golden").status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(ParseConfig("", "config.json").ok());
  EXPECT_FALSE(ParseConfig("{\"dim\": 1, \"dim\": 2}", "config.json").ok());
  TestFolder folder;
  WriteFile(folder / "config.json", std::string(2 << 20, ' '));
  EXPECT_THAT(std::string(LoadConfig(folder.path()).status().message()), HasSubstr("at most"));
}

}  // namespace
}  // namespace cairn::engine
