use criterion::Criterion;

fn main() {
    hybridnorm_benches::bandwidth(&mut Criterion::default().configure_from_args());
}
