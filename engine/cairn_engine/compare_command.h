// compare_command.h: `cairn-engine compare`: are the tensors of two safetensors files the same, to
// the bit?
#ifndef CAIRN_ENGINE_CAIRN_ENGINE_COMPARE_COMMAND_H_
#define CAIRN_ENGINE_CAIRN_ENGINE_COMPARE_COMMAND_H_

#include <string>

namespace cairn::engine {

struct CompareOptions {
  std::string first;
  std::string second;
};

// 0 if all are the same; kExitMismatch otherwise, naming the first tensor and element that differ.
int RunCompareCommand(const CompareOptions& options);

}  // namespace cairn::engine

#endif  // CAIRN_ENGINE_CAIRN_ENGINE_COMPARE_COMMAND_H_
