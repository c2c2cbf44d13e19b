use criterion::Criterion;

fn main() {
    hybridnorm_benches::layer(&mut Criterion::default().configure_from_args());
}
