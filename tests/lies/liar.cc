#include "tests/lies/liar.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/reflection.h>

#include <utility>

namespace cairn::lies {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

using Lies = std::vector<Lie>;

template <typename T>
std::vector<std::pair<std::string, T>> WrongNumbers(T value) {
  return {{" + 1", static_cast<T>(value + 1)},
          {" - 1", static_cast<T>(value - 1)},
          {" = 0", T{0}},
          {" = max", static_cast<T>(-1)},
          {" + 4096", static_cast<T>(value + 4096)}};
}

std::vector<std::pair<std::string, std::string>> WrongBytes(const std::string& value) {
  std::vector<std::pair<std::string, std::string>> out = {{" longer", value + "x"}};
  if (value.empty()) return out;
  out.emplace_back(" shorter", value.substr(0, value.size() - 1));
  out.emplace_back(" empty", "");
  out.emplace_back(" zeroed", std::string(value.size(), '\0'));
  std::string flipped = value;
  flipped[value.size() / 2] = static_cast<char>(flipped[value.size() / 2] ^ 4);
  out.emplace_back(" flipped", flipped);
  return out;
}

// `set(value)` sets the field, or one element of it.
template <typename T, typename Set>
void AddAll(const std::vector<std::pair<std::string, T>>& wrong, const std::string& name, Set set,
            Lies& lies) {
  for (const auto& [how, value] : wrong) {
    lies.push_back({name + how, [set, value = value] { set(value); }});
  }
}

void Collect(Message& message, const std::string& path, Lies& lies);

void AddOne(Message& m, const FieldDescriptor* f, const std::string& name, Lies& lies) {
  const Reflection* const r = m.GetReflection();
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      AddAll(
          WrongNumbers(r->GetUInt32(m, f)), name,
          [&m, r, f](uint32_t v) { r->SetUInt32(&m, f, v); }, lies);
      return;
    case FieldDescriptor::CPPTYPE_UINT64:
      AddAll(
          WrongNumbers(r->GetUInt64(m, f)), name,
          [&m, r, f](uint64_t v) { r->SetUInt64(&m, f, v); }, lies);
      return;
    case FieldDescriptor::CPPTYPE_BOOL:
      lies.push_back({name + " inverted", [&m, r, f] { r->SetBool(&m, f, !r->GetBool(m, f)); }});
      return;
    case FieldDescriptor::CPPTYPE_STRING:
      AddAll(
          WrongBytes(r->GetString(m, f)), name,
          [&m, r, f](const std::string& v) { r->SetString(&m, f, v); }, lies);
      return;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      lies.push_back({name + " absent", [&m, r, f] { r->ClearField(&m, f); }});
      if (r->HasField(m, f)) Collect(*r->MutableMessage(&m, f), name + ".", lies);
      return;
    default:
      return;  // the contract has no others
  }
}

void AddElement(Message& m, const FieldDescriptor* f, int i, const std::string& name, Lies& lies) {
  const Reflection* const r = m.GetReflection();
  switch (f->cpp_type()) {
    case FieldDescriptor::CPPTYPE_UINT32:
      AddAll(
          WrongNumbers(r->GetRepeatedUInt32(m, f, i)), name,
          [&m, r, f, i](uint32_t v) { r->SetRepeatedUInt32(&m, f, i, v); }, lies);
      return;
    case FieldDescriptor::CPPTYPE_UINT64:
      AddAll(
          WrongNumbers(r->GetRepeatedUInt64(m, f, i)), name,
          [&m, r, f, i](uint64_t v) { r->SetRepeatedUInt64(&m, f, i, v); }, lies);
      return;
    case FieldDescriptor::CPPTYPE_MESSAGE:
      Collect(*r->MutableRepeatedMessage(&m, f, i), name + ".", lies);
      return;
    default:
      return;
  }
}

// A list with its last element once more.
void Lengthen(Message& m, const FieldDescriptor* f) {
  const Reflection* const r = m.GetReflection();
  const int last = r->FieldSize(m, f) - 1;
  if (f->cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
    r->AddMessage(&m, f)->CopyFrom(r->GetRepeatedMessage(m, f, last));
  } else if (f->cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
    r->AddUInt64(&m, f, r->GetRepeatedUInt64(m, f, last));
  } else if (f->cpp_type() == FieldDescriptor::CPPTYPE_UINT32) {
    r->AddUInt32(&m, f, r->GetRepeatedUInt32(m, f, last));
  }
}

void AddList(Message& m, const FieldDescriptor* f, const std::string& name, Lies& lies) {
  const Reflection* const r = m.GetReflection();
  const int size = r->FieldSize(m, f);
  if (size == 0) return;
  lies.push_back({name + " emptied", [&m, r, f] { r->ClearField(&m, f); }});
  lies.push_back({name + " shorter", [&m, r, f] { r->RemoveLast(&m, f); }});
  lies.push_back({name + " longer", [&m, f] { Lengthen(m, f); }});
  AddElement(m, f, 0, name + "[0]", lies);
  if (size == 1) return;
  lies.push_back(
      {name + " out of order", [&m, r, f, size] { r->SwapElements(&m, f, 0, size - 1); }});
  AddElement(m, f, size - 1, name + "[last]", lies);
}

void Collect(Message& message, const std::string& path, Lies& lies) {
  const auto* const descriptor = message.GetDescriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const FieldDescriptor* const field = descriptor->field(i);
    const std::string name = path + std::string(field->name());
    if (field->is_repeated()) {
      AddList(message, field, name, lies);
    } else {
      AddOne(message, field, name, lies);
    }
  }
}

}  // namespace

std::vector<Lie> LiesAbout(Message& message) {
  Lies lies;
  Collect(message, "", lies);
  return lies;
}

void Liar::Speak(const std::string& method, Message& answer) {
  if (method != method_) return;
  const MutexLock lock(&mutex_);
  const std::vector<Lie> lies = LiesAbout(answer);
  const uint64_t first = passed_;
  passed_ += lies.size();
  if (index_ < first || index_ >= passed_) return;
  lies[index_ - first].tell();
  told_ = method + "." + lies[index_ - first].name;
}

std::string Liar::told() const {
  const MutexLock lock(&mutex_);
  return told_;
}

}  // namespace cairn::lies
