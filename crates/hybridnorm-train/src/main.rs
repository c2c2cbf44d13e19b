fn main() {
    let dir = std::env::args().nth(1).unwrap();
    let r =
        hybridnorm_train::verify::run(dir.as_ref(), &burn::tensor::Device::flex(), "flex", |c| {
            println!("{c}")
        })
        .unwrap();
    println!("{} {} {}", r.passed, r.failed, r.unsupported);
}
