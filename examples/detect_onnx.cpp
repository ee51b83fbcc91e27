// Detect with a file of `rfla export` by the C++ API of ONNX Runtime, nothing else.
//
// g++ -std=c++17 detect_onnx.cpp -I ORT/include -L ORT/lib -lonnxruntime -o detect_onnx
// ./detect_onnx best.onnx image.ppm
//
// The image is a binary PPM (P6, 8 bits), which every tool writes (`convert image.png image.ppm`);
// it goes in at its own size. Where that is not the `imgsz` of the metadata, resize it first, as
// detect_onnx.py does: the network knows objects of the size that they had in training. A network
// of `detectors` needs 96 px at least (`least_side` of the entry `export`).

#include <onnxruntime_cxx_api.h>

#include <array>
#include <cstdint>
#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <string>
#include <vector>

struct Image {
    int64_t height = 0, width = 0;
    std::vector<uint8_t> rgb;  // rows of pixels, three bytes each
};

Image read_ppm(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    std::string magic;
    int highest = 0;
    Image image;
    file >> magic >> image.width >> image.height >> highest;
    if (!file || magic != "P6" || highest != 255 || image.width < 1 || image.height < 1)
        throw std::runtime_error(path + ": not a binary PPM of 8 bits");
    file.get();  // the one white space before the pixels
    image.rgb.resize(3 * image.height * image.width);
    if (!file.read(reinterpret_cast<char*>(image.rgb.data()), image.rgb.size()))
        throw std::runtime_error(path + ": cut off");
    return image;
}

// Planes of red, green and blue, padded with zeros on the right and at the bottom.
std::vector<uint8_t> padded_planes(const Image& image, int64_t height, int64_t width) {
    std::vector<uint8_t> planes(3 * height * width, 0);
    for (int64_t channel = 0; channel < 3; ++channel)
        for (int64_t y = 0; y < image.height; ++y)
            for (int64_t x = 0; x < image.width; ++x)
                planes[(channel * height + y) * width + x] =
                    image.rgb[3 * (y * image.width + x) + channel];
    return planes;
}

int main(int count, char** arguments) try {
    if (count != 3) throw std::runtime_error("usage: detect_onnx best.onnx image.ppm");
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "rfla");
    Ort::Session session(environment, arguments[1], Ort::SessionOptions());

    const Image image = read_ppm(arguments[2]);
    const int64_t height = (image.height + 31) / 32 * 32, width = (image.width + 31) / 32 * 32;
    std::vector<uint8_t> planes = padded_planes(image, height, width);
    std::array<int64_t, 2> size = {image.height, image.width};  // before padding

    const std::array<int64_t, 4> images_shape = {1, 3, height, width};
    const std::array<int64_t, 2> sizes_shape = {1, 2};
    auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    std::array<Ort::Value, 2> inputs = {
        Ort::Value::CreateTensor<uint8_t>(memory, planes.data(), planes.size(),
                                          images_shape.data(), images_shape.size()),
        Ort::Value::CreateTensor<int64_t>(memory, size.data(), size.size(), sizes_shape.data(),
                                          sizes_shape.size()),
    };
    const char* input_names[] = {"images", "image_sizes"};
    const char* output_names[] = {"boxes", "scores", "labels", "counts"};
    auto outputs = session.Run(Ort::RunOptions(), input_names, inputs.data(), inputs.size(),
                               output_names, 4);

    const float* boxes = outputs[0].GetTensorData<float>();
    const float* scores = outputs[1].GetTensorData<float>();
    const int64_t* labels = outputs[2].GetTensorData<int64_t>();
    const int64_t found = *outputs[3].GetTensorData<int64_t>();
    for (int64_t i = 0; i < found && scores[i] >= 0.25f; ++i)  // best first
        std::printf("class %lld %.3f  %.1f %.1f %.1f %.1f\n", static_cast<long long>(labels[i]),
                    scores[i], boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]);
    return 0;
} catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
}
