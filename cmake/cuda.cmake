# CUDA where nvcc is found (PATH or CUDACXX): the kernels in kernels/cuda, the GPU tier and their benches. Without it
# everything else is built. The runtime is linked statically and finds the driver when it is first used, so programs
# start on machines without a GPU. Not in sanitizer builds: the device code would not be seen by them.
option(CAIRN_CUDA "Build the CUDA parts where nvcc is found" ON)
set(CAIRN_HAS_CUDA OFF)
if(CAIRN_CUDA AND NOT CAIRN_SANITIZE)
  include(CheckLanguage)
  check_language(CUDA)
  if(CMAKE_CUDA_COMPILER)
    # wgmma and the bulk copy engine are sm_90a's own.
    set(CMAKE_CUDA_ARCHITECTURES 90a)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    enable_language(CUDA)
    if(NOT DEFINED CMAKE_CUDA20_STANDARD_COMPILE_OPTION)  # CMake 3.25 does not know that nvcc has it
      set(CMAKE_CUDA20_STANDARD_COMPILE_OPTION -std=c++20)
      set(CMAKE_CUDA_STANDARD_LATEST 20)
    endif()
    find_package(CUDAToolkit REQUIRED)
    set(CAIRN_HAS_CUDA ON)
  endif()
endif()
if(CAIRN_HAS_CUDA)
  message(STATUS "CUDA ${CMAKE_CUDA_COMPILER_VERSION}: kernels/cuda and the GPU tier are built")
else()
  message(STATUS "CUDA left out (no nvcc, or a sanitizer build): no kernels/cuda, no GPU tier")
endif()
